"""A proxy before a vLLM server that holds one request, so that a test can act at that very moment."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web


class Gate:
    """Passes everything on, streams too, but for the `count`-th request to `path`, which it never answers."""

    def __init__(self, server: str, path: str, count: int) -> None:
        self._server, self._path, self._left = server, path, count
        self.reached = asyncio.Event()
        """Set when that request has come."""
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Gate:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        # A client that is killed lets go of its requests at the server too, as it would without a proxy.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *ignored: object) -> None:
        assert self._runner is not None and self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if request.path == self._path:
            self._left -= 1
            if self._left == 0:
                self.reached.set()
                await asyncio.Event().wait()
        assert self._session is not None
        kind = {"Content-Type": request.content_type} if request.can_read_body else {}
        body = await request.read()
        async with self._session.request(
            request.method, self._server + request.path_qs, data=body, headers=kind
        ) as answer:
            passed = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await passed.prepare(request)
            async for chunk in answer.content.iter_any():
                await passed.write(chunk)
            return passed
