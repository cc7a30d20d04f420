"""One request at a time to the resident program of a language box."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import Box

__all__ = ["ask"]

_MAX_FRAME_BYTES = 16 << 20


async def ask(box: Box, message: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Send a request and wait for its reply; output streams of the box carry nothing.

    Raises:
        BoxLost: the box ended, wrote what is no reply, or did not answer in time; it is gone then.
        HostFault: our side failed.
    """
    loop = asyncio.get_running_loop()
    channel = socket.socket(fileno=os.dup(box.fileno()))
    channel.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            data = json.dumps(message).encode()
            await loop.sock_sendall(channel, len(data).to_bytes(4, "big") + data)
            size = int.from_bytes(await _exactly(channel, 4), "big")
            if size > _MAX_FRAME_BYTES:
                raise ValueError("its reply is too large")
            reply = json.loads(await _exactly(channel, size))
            if not isinstance(reply, dict) or reply.get("id") != message["id"]:
                raise ValueError("its reply is none")
            return reply
    except TimeoutError:
        await _lost(box, f"no answer within {timeout_s:g} s")
    except (OSError, EOFError, ValueError, RecursionError) as error:
        await _lost(box, f"the box ended: {error}")
    finally:
        channel.close()
    raise AssertionError("unreachable")


async def _exactly(channel: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        chunk = await loop.sock_recv(channel, count - len(data))
        if not chunk:
            raise EOFError("its socket was closed")
        data += chunk
    return bytes(data)


async def _lost(box: Box, why: str) -> None:
    end = await box.kill()
    if end.host_fault:
        raise HostFault(f"the box was lost: {end.reason}")
    raise BoxLost(end.reason if end.oom or (end.code or 0) != 0 else why)
