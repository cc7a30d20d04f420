"""One request at a time to the resident program of a language box."""

from __future__ import annotations

from typing import Any

from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import Box
from agenthub.sandboxes.isolation.frames import exchange

__all__ = ["ask"]

_MAX_FRAME_BYTES = 16 << 20


async def ask(box: Box, message: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Send a request and wait for its reply; output streams of the box carry nothing.

    Raises:
        BoxLost: the box ended, wrote what is no reply, or did not answer in time; it is gone then.
        HostFault: our side failed.
    """
    try:
        return await exchange(box, message, timeout_s=timeout_s, most_bytes=_MAX_FRAME_BYTES)
    except TimeoutError:
        why = f"no answer within {timeout_s:g} s"
    except (OSError, EOFError, ValueError, RecursionError) as error:
        why = f"the box ended: {error}"
    end = await box.kill()
    if end.host_fault:
        raise HostFault(f"the box was lost: {end.reason}")
    raise BoxLost(end.reason if end.oom or (end.code or 0) != 0 else why)
