"""The way to a desktop's resident program: one order at a time, each with its answer."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import Box
from agenthub.sandboxes.isolation.frames import receive, send

__all__ = ["DesktopLink", "Refused"]

_MOST_BYTES = 1 << 20
_GONE = "the display is gone"


class Refused(Exception):
    """The resident program could not do what it was told; the message says why."""


class DesktopLink:
    """Orders to the program in a box. What it answers is the box's word, and proof of nothing."""

    def __init__(self, box: Box) -> None:
        self._box = box
        try:
            self._socket = socket.socket(fileno=os.dup(box.fileno()))
        except OSError as error:
            raise BoxLost(f"the desktop ended: {error}") from error
        self._socket.setblocking(False)
        self._asked = 0

    async def ready(self, timeout_s: float) -> None:
        """Wait until the desktop is up. Raises HostFault: nothing of a policy was in the box yet."""
        try:
            async with asyncio.timeout(timeout_s):
                told = await receive(self._socket, most_bytes=_MOST_BYTES)
        except (TimeoutError, OSError, EOFError, ValueError, RecursionError) as error:
            raise HostFault(f"the desktop did not start: {error or 'no answer'}") from error
        if told.get("ready") is not True:
            raise HostFault(f"the desktop did not start: {str(told.get('error'))[:500]}")

    async def ask(self, op: str, *, timeout_s: float, **order: Any) -> dict[str, Any]:
        """One order and its answer.

        Raises:
            Refused: it could not be done; the desktop goes on.
            BoxLost: the box ended, or its program does not answer.
            HostFault: our side failed.
        """
        self._asked += 1
        try:
            async with asyncio.timeout(timeout_s):
                await send(self._socket, {"op": op, "id": self._asked, **order})
                reply = await receive(self._socket, most_bytes=_MOST_BYTES)
        except TimeoutError:
            raise BoxLost(f"the desktop did not answer within {timeout_s:g} s") from None
        except (OSError, EOFError, ValueError, RecursionError) as error:
            ended = await self._box.kill()
            if ended.host_fault:
                raise HostFault(f"the desktop was lost: {ended.reason}") from error
            raise BoxLost(f"the desktop ended: {ended.reason}") from error
        if reply.get("id") != self._asked:
            raise BoxLost("a program on the desktop wrote to the sandbox's socket")
        why = reply.get("error")
        if why is not None:
            if _GONE in str(why):
                raise BoxLost(f"{_GONE}: a program on the desktop ended it")
            raise Refused(str(why)[:500])
        return reply

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
