"""The second face: one WebSocket for many episodes.

A request is a text frame `{"id", "op", ...parameters}`; its answer is `{"id", "status", "result"}` or
`{"id", "status", "error"}`, sent as soon as it is there, in any order. `steps` sends `{"id", "line"}` for each line and
ends with a result. Octets are base64. An error concerns its own frame alone.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing
from typing import Any

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from agenthub.errors import WireError
from agenthub.server.access import Principal
from agenthub.server.answers import OCTETS, Answer, dumps, error_row
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.guard import principal
from agenthub.server.logs import FACTS
from agenthub.server.params import parse_json

__all__ = ["WebSocketFace"]

_AT_ONCE = 4096
"""Frames of one connection that are answered at once; more are read when one is done."""
_HEARTBEAT_S = 30.0
_GOODBYE_S = 0.1
"""Seconds to wait for a client's part of a closing handshake: a hub that stops has no more."""


class WebSocketFace:
    """Every open WebSocket of a hub."""

    def __init__(self, dispatcher: Dispatcher, max_frame: int, max_unread: int) -> None:
        """`max_frame` bounds what comes, in octets; `max_unread` what waits for a client that does not read."""
        self._dispatcher, self._max_frame, self._max_unread = dispatcher, max_frame, max_unread
        self._open: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one connection until it ends. What its frames began goes on without it."""
        socket = web.WebSocketResponse(
            max_msg_size=self._max_frame, compress=False, heartbeat=_HEARTBEAT_S, timeout=_GOODBYE_S
        )
        socket.headers["X-Request-Id"] = FACTS.get()["request_id"]
        await socket.prepare(request)
        self._open.add(socket)
        connection = _Connection(socket, request.transport, self._dispatcher, principal(request), self._max_unread)
        try:
            await connection.serve()
        finally:
            self._open.discard(socket)
        return socket

    async def close(self) -> None:
        """Say goodbye on every connection."""
        goodbyes = (socket.close(code=WSCloseCode.GOING_AWAY, message=b"stopping") for socket in list(self._open))
        await asyncio.gather(*goodbyes, return_exceptions=True)


class _Connection:
    """One WebSocket. Who it is was asked when it was opened; a token that is revoked ends it."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        dispatcher: Dispatcher,
        who: Principal,
        max_unread: int,
    ) -> None:
        self._socket, self._transport, self._max_unread = socket, transport, max_unread
        self._dispatcher, self._who = dispatcher, who

    async def serve(self) -> None:
        """Answer frames until the connection ends."""
        room = asyncio.Semaphore(_AT_ONCE)
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for message in self._socket:
                await room.acquire()
                task = asyncio.ensure_future(self._frame(message))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: room.release())
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _frame(self, message: WSMessage) -> None:
        """Answer one frame. A connection that is gone ends it in silence: the client asks again on its next one."""
        identity: bytes = b"null"
        try:
            values = _object(message)
            identity = _identity(values)
            op = values.pop("op", None)
            if not isinstance(op, str):
                raise WireError("invalid", 422, "op: expected the name of an operation")
            if op == "steps":
                answer = await self._steps(identity, values)
            else:
                answer = await self._dispatcher.dispatch(op, values, self._who)
            await self._send(identity, answer.status, b"result", _json(answer))
        except WireError as error:
            await self._send(identity, error.status, b"error", dumps(dict(error_row(error))))

    async def _steps(self, identity: bytes, values: Any) -> Answer:
        count = 0
        async with aclosing(self._dispatcher.steps(values, self._who)) as lines:
            async for ready in lines:
                count += len(ready)
                for line in ready:
                    await self._write(b'{"id":%b,"line":%b}' % (identity, line))
        return Answer(dumps({"lines": count}))

    async def _send(self, identity: bytes, status: int, name: bytes, body: bytes) -> None:
        await self._write(b'{"id":%b,"status":%d,"%b":%b}' % (identity, status, name, body))

    async def _write(self, frame: bytes) -> None:
        if self._socket.closed:
            return
        if self._transport is not None and self._transport.get_write_buffer_size() > self._max_unread:
            self._transport.abort()
            return
        try:
            await self._socket.send_frame(frame, WSMsgType.TEXT)
        except ConnectionError:
            return


def _object(message: WSMessage) -> dict[str, Any]:
    if message.type is not WSMsgType.TEXT:
        raise WireError("malformed_json", 400, "expected a text frame of JSON")
    values = parse_json(message.data)
    if not isinstance(values, dict):
        raise WireError("invalid", 422, f"expected a JSON object, got {type(values).__name__}")
    return values


def _identity(values: dict[str, Any]) -> bytes:
    """The frame's id as JSON.

    Raises:
        WireError: 422: it is missing, or neither an integer nor a short string.
    """
    identity = values.pop("id", None)
    if isinstance(identity, bool) or not isinstance(identity, int | str) or len(str(identity)) > 200:
        raise WireError("invalid", 422, "id: expected an integer or a string of at most 200 characters")
    return dumps(identity)


def _json(answer: Answer) -> bytes:
    if answer.media_type == OCTETS:
        return dumps({"data": base64.b64encode(answer.body).decode("ascii")})
    return answer.body
