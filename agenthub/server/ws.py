"""The second face: one WebSocket for many episodes.

A request is a text frame `{"id", "op", ...parameters}`; its answer is `{"id", "status", "result"}` or
`{"id", "status", "error"}`, sent as soon as it is there, in any order. `steps` sends `{"id", "line"}` for each line and
ends with a result. Octets are base64. An error concerns its own request alone.

A frame may also be a list of requests. Their answers come in lists, each of those that are there in the same moment.
"""

from __future__ import annotations

import asyncio
import base64
import functools
from collections.abc import Iterator, Sequence
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
"""Requests of one connection that are answered at once; another frame is read when there are fewer."""
_MOST_LISTED = 4096
_BEGUN_TOGETHER = 64
_LIST_BYTES = 1 << 20
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        """Requests without an answer yet."""
        self._room = asyncio.Event()
        self._out: list[tuple[bytes, bool]] = []
        """Answers that wait to be sent, and whether each belongs into a list."""
        self._unsent = 0
        """Their octets, and those of the answers that are being sent."""
        self._sending: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer frames until the connection ends."""
        try:
            async for message in self._socket:
                await self._take(message)
                while self._running >= _AT_ONCE:
                    self._room.clear()
                    await self._room.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _take(self, message: WSMessage) -> None:
        """Begin what a frame asks for; of a long list a few at a time, so that others have their turn."""
        try:
            if message.type is not WSMsgType.TEXT:
                raise WireError("malformed_json", 400, "expected a text frame of JSON")
            values = parse_json(message.data)
            if isinstance(values, list) and not 1 <= len(values) <= _MOST_LISTED:
                raise WireError("invalid", 422, f"a list has 1 to {_MOST_LISTED} requests, this one {len(values)}")
        except WireError as error:
            self._running += 1
            self._answer(b"null", False, error)
            return
        listed = isinstance(values, list)
        rows = values if listed else [values]
        self._running += len(rows)
        for position, row in enumerate(rows):
            if position and position % _BEGUN_TOGETHER == 0:
                await asyncio.sleep(0)
            self._begin(row, listed)

    def _begin(self, values: Any, listed: bool) -> None:
        identity = b"null"
        try:
            if not isinstance(values, dict):
                raise WireError("invalid", 422, f"expected a JSON object, got {type(values).__name__}")
            identity = _identity(values)
            op = values.pop("op", None)
            if not isinstance(op, str):
                raise WireError("invalid", 422, "op: expected the name of an operation")
            if op == "step":
                step = self._dispatcher.read_step(values, self._who)
                self._dispatcher.step(step, self._who, functools.partial(self._answer, identity, listed))
                return
        except WireError as error:
            self._answer(identity, listed, error)
            return
        task = asyncio.ensure_future(self._work(identity, listed, op, values))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, identity: bytes, listed: bool, op: str, values: Any) -> None:
        """Everything but a step."""
        try:
            if op == "steps":
                answer = await self._steps(identity, listed, values)
            else:
                answer = await self._dispatcher.dispatch(op, values, self._who)
        except WireError as error:
            self._answer(identity, listed, error)
        else:
            self._answer(identity, listed, _json(answer), answer.status)

    async def _steps(self, identity: bytes, listed: bool, values: Any) -> Answer:
        count = 0
        async with aclosing(self._dispatcher.steps(values, self._who)) as lines:
            async for ready in lines:
                count += len(ready)
                for line in ready:
                    self._send(b'{"id":%b,"line":%b}' % (identity, line), listed)
        return Answer(dumps({"lines": count}))

    def _answer(self, identity: bytes, listed: bool, answer: bytes | WireError, status: int = 200) -> None:
        """The end of one request."""
        self._running -= 1
        self._room.set()
        if isinstance(answer, WireError):
            row = b'{"id":%b,"status":%d,"error":%b}' % (identity, answer.status, dumps(dict(error_row(answer))))
        else:
            row = b'{"id":%b,"status":%d,"result":%b}' % (identity, status, answer)
        self._send(row, listed)

    def _send(self, row: bytes, listed: bool) -> None:
        """Have a row sent with whatever else is answered in this moment. Nothing is said where nobody listens any more:
        the client asks again on its next connection.
        """
        if self._socket.closed:
            return
        self._unsent += len(row)
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if self._unsent + buffered > self._max_unread:
            self._close()
            return
        self._out.append((row, listed))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._flush())

    async def _flush(self) -> None:
        while self._out:
            rows, self._out = self._out, []
            try:
                for frame, octets in _frames(rows):
                    # From here on the transport counts them.
                    self._unsent -= octets
                    await self._socket.send_frame(frame, WSMsgType.TEXT)
            except ConnectionError:
                self._close()
                return

    def _close(self) -> None:
        """Cut the connection off, and keep nothing for it."""
        self._out.clear()
        self._unsent = 0
        if self._transport is not None:
            self._transport.abort()


def _frames(rows: Sequence[tuple[bytes, bool]]) -> Iterator[tuple[bytes, int]]:
    """Answers as frames, each with the octets of its answers: those of lists together, up to a megabyte."""
    together: list[bytes] = []
    size = 0
    for row, listed in rows:
        if not listed:
            yield row, len(row)
            continue
        if together and size + len(row) > _LIST_BYTES:
            yield b"[%b]" % b",".join(together), size
            together, size = [], 0
        together.append(row)
        size += len(row)
    if together:
        yield b"[%b]" % b",".join(together), size


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
