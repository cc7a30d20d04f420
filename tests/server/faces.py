"""The hub's faces with one shape: `call(op, **params)` gives status and body, whatever carries it."""

from __future__ import annotations

import base64
import itertools
import json
from types import TracebackType
from typing import Any, Protocol

import aiohttp

from agenthub.server.routes import ROUTES

__all__ = ["FACES", "Face"]

_ROUTES = {route.op: route for route in ROUTES}


class Face(Protocol):
    """A client of one face."""

    async def __aenter__(self) -> Face: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def call(self, op: str, **params: Any) -> tuple[int, Any]: ...

    async def raw(self, op: str, text: str, **path: str) -> tuple[int, Any]:
        """Send text as the operation's body (routes) or frame."""


class Routes:
    """Plain HTTP."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url, self._headers = url, {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> Routes:
        self._session = aiohttp.ClientSession(headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, op: str, **params: Any) -> tuple[int, Any]:
        route = _ROUTES[op]
        in_path = {name: params.pop(name) for name in list(params) if f"{{{name}}}" in route.path}
        url = self.url + route.path.format(**in_path)
        if route.body == "octets":
            return await self._send(route.method, url, data=params["data"])
        if route.body == "json":
            return await self._send(route.method, url, data=json.dumps(params))
        return await self._send(route.method, url, params={key: str(value) for key, value in params.items()})

    async def raw(self, op: str, text: str, **path: str) -> tuple[int, Any]:
        route = _ROUTES[op]
        return await self._send(route.method, self.url + route.path.format(**path), data=text)

    async def _send(self, method: str, url: str, **how: Any) -> tuple[int, Any]:
        async with self._session.request(method, url, **how) as response:
            body = await response.read()
            if response.content_type == "application/octet-stream":
                return response.status, body
            return response.status, json.loads(body)


class Ndjson(Routes):
    """Steps as batches of one; everything else as routes."""

    async def call(self, op: str, **params: Any) -> tuple[int, Any]:
        if op != "step":
            return await super().call(op, **params)
        return await self._line(json.dumps({"steps": [params]}))

    async def raw(self, op: str, text: str, **path: str) -> tuple[int, Any]:
        if op != "step":
            return await super().raw(op, text, **path)
        return await self._line(f'{{"steps":[{text}]}}')

    async def _line(self, text: str) -> tuple[int, Any]:
        async with self._session.post(f"{self.url}/v1/steps", data=text) as response:
            body = await response.read()
            row = json.loads(body)
            if response.status != 200:
                return response.status, row
            return row.get("status", 200), row


class WebSocket:
    """One socket."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url, self._headers = url, {"Authorization": f"Bearer {token}"} if token else {}
        self._ids = itertools.count()

    async def __aenter__(self) -> WebSocket:
        self._session = aiohttp.ClientSession(headers=self._headers)
        self._socket = await self._session.ws_connect(f"{self.url}/v1/ws")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()
        await self._session.close()

    async def call(self, op: str, **params: Any) -> tuple[int, Any]:
        if "data" in params:
            params["data"] = base64.b64encode(params["data"]).decode()
        status, body = await self.raw(op, json.dumps(params))
        if status < 300 and set(body) == {"data"}:
            return status, base64.b64decode(body["data"])
        return status, body

    async def raw(self, op: str, text: str, **path: str) -> tuple[int, Any]:
        identity = next(self._ids)
        tail = text.strip().removeprefix("{")
        await self._socket.send_str(f'{{"id":{identity},"op":"{op}"' + (tail if tail == "}" else f",{tail}"))
        row = await self._socket.receive_json(timeout=20)
        assert row["id"] in (identity, None)
        return row["status"], row["result"] if "result" in row else {"error": row["error"]}


class Lists(WebSocket):
    """One socket, and every request in a list with one that nobody knows."""

    async def raw(self, op: str, text: str, **path: str) -> tuple[int, Any]:
        identity, tail = next(self._ids), text.strip().removeprefix("{")
        stranger = f'{{"id":"stranger","op":"strange_{identity}"}}'
        asked = f'{{"id":{identity},"op":"{op}"' + (tail if tail == "}" else f",{tail}")
        await self._socket.send_str(f"[{asked},{stranger}]")
        found: dict[Any, Any] = {}
        while len(found) < 2 and None not in found:
            answer = await self._socket.receive_json(timeout=20)
            found |= {row["id"]: row for row in (answer if isinstance(answer, list) else [answer])}
        if None in found:  # the frame as a whole could not be read
            return found[None]["status"], {"error": found[None]["error"]}
        assert found["stranger"]["status"] == 404
        row = found[identity]
        return row["status"], row["result"] if "result" in row else {"error": row["error"]}


FACES: dict[str, type[Routes] | type[WebSocket]] = {
    "routes": Routes,
    "websocket": WebSocket,
    "lists": Lists,
    "ndjson": Ndjson,
}
