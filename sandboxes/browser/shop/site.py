"""The shop as a site of the browser: its server runs in a box of its own, and its database is read from outside."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import Box, BoxSpec, Isolation, Limits, Resting
from agenthub.records import frozen
from agenthub.sandbox import FileChange
from agenthub.sandboxes.browser.site import Request, Response
from agenthub.sandboxes.isolation.frames import receive, send
from agenthub.sandboxes.pool import Pool

__all__ = ["DATABASE", "ShopSite", "shop_pool"]

DATABASE = "shop.sqlite"
_INSIDE = Path(__file__).parent
_BOOT = """import sys, types
for name, text in {sources!r}:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, name + ".py", "exec"), module.__dict__)
sys.modules["guest"].main()
"""
_LIMITS = Limits(memory_mb=128, pids=8, disk_mb=16)
_ANSWER_S = 20.0
_MOST_BYTES = 4 << 20
_DATABASE_BYTES = 16 << 20


def shop_pool(isolation: Isolation) -> Pool:
    """Servers that are started ahead."""
    sources = [(name, (_INSIDE / f"{name}.py").read_text(encoding="utf-8")) for name in ("store", "pages", "guest")]
    argv = (os.path.realpath(sys.executable), "-I", "-S", "-c", _BOOT.format(sources=sources))
    return Pool(isolation, BoxSpec(image="python", argv=argv, limits=_LIMITS), low=1, high=2)


class ShopSite:
    """A `Site` with a server and a database of its own."""

    def __init__(self, origin: str, box: Box) -> None:
        self.origin, self._box = origin, box
        try:
            self._socket = socket.socket(fileno=os.dup(box.fileno()))
        except OSError as error:
            raise HostFault(f"the shop did not start: {error}") from error
        self._socket.setblocking(False)
        self._one = asyncio.Lock()
        self._stopped = False
        self.lost = ""

    async def answer(self, request: Request) -> Response:
        """What the server says; status 503 where it is gone."""
        path = request.url.removeprefix(self.origin) or "/"
        asked = {"method": request.method, "url": path, "body": request.body.decode("utf-8", "replace")}
        try:
            async with self._one, asyncio.timeout(_ANSWER_S):
                if self._stopped:
                    raise EOFError("it has stopped")
                told = await self._asked(asked)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.lost = self.lost or f"the shop's server was lost: {error or 'no answer'}"
            return Response(status=503, headers=frozen({"content-type": "text/plain"}), body=b"the shop is closed")
        return Response(status=told["status"], headers=frozen(told["headers"]), body=told["body"].encode())

    async def changes(self) -> tuple[FileChange, ...]:
        """The database as a file, once the server is stopped.

        Raises:
            HostFault: the server was lost: nothing of a policy ever runs in its box.
        """
        async with self._one:
            self._stopped = True
        if isinstance(self._box, Resting):
            self._box.rest()
        if self.lost:
            raise HostFault(self.lost)
        try:
            data = await self._box.read_file(DATABASE, max_bytes=_DATABASE_BYTES)
        except BoxLost as lost:
            raise HostFault(f"the shop's server was lost: {lost}") from lost
        return (FileChange(path=DATABASE, data=data),)

    def close(self) -> None:
        """Free the box."""
        self._stopped = True
        self._socket.close()
        self._box.discard()

    async def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        await send(self._socket, message)
        return await receive(self._socket, most_bytes=_MOST_BYTES)
