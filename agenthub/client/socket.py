"""One WebSocket to the hub, shared by any number of requests at once, opened again whenever it is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from pydantic_core import from_json

from agenthub.client.retry import Again, Patience, refusal
from agenthub.errors import HubUnreachable, UserError, WireError

__all__ = ["Socket"]

_CONNECT_S = 10.0
_HEARTBEAT_S = 30.0
_TOO_BIG = 1009
_LIST_CHARS = 1 << 16
_MOST_LISTED = 1024


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits for its answer."""

    answer: asyncio.Future[dict[str, Any]]
    size: int
    """Characters of its frame."""


@dataclass(slots=True)
class _Connection:
    """One connection, and what waits for answers on it."""

    socket: aiohttp.ClientWebSocketResponse
    asked: dict[int, _Asked] = field(default_factory=dict)
    reader: asyncio.Task[None] | None = None
    out: list[str] = field(default_factory=list)
    """Requests that were asked for in this moment: they go out together."""
    sender: asyncio.Task[None] | None = None

    def send(self, request: str) -> None:
        """Send a request with whatever else is asked for in this moment."""
        self.out.append(request)
        if self.sender is None or self.sender.done():
            self.sender = asyncio.get_running_loop().create_task(_send(self))


class Socket:
    """Frames out, answers in, in any order."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, budget_s: float) -> None:
        self._session, self._url, self._budget_s = session, url, budget_s
        self._ids = itertools.count(1)
        self._connecting = asyncio.Lock()
        self._now: _Connection | None = None
        self._closed = False

    async def call(self, op: str, params: str) -> Any:
        """The result of an operation; `params` is the text of a JSON object.

        The same frame is sent again after a lost connection, so the operation must be safe to repeat (all are).

        Raises:
            WireError: the hub refuses.
            HostFault: the hub failed on its side.
            HubUnreachable: no answer within the budget, or the client was closed.
        """
        patience = Patience(self._budget_s, self._url)
        while True:
            identity = next(self._ids)
            head = f'{{"id":{identity},"op":"{op}"'
            try:
                answer = await self._once(identity, head + ("}" if params == "{}" else "," + params[1:]))
            except Again as why:
                await patience.wait(why)
                continue
            if "error" not in answer:
                return answer.get("result")
            refused = refusal(int(answer.get("status", 500)), answer["error"], op=op)
            if not isinstance(refused, Again):
                raise refused
            await patience.wait(refused)

    async def close(self) -> None:
        """Close the connection; requests that still wait raise HubUnreachable."""
        self._closed = True
        if self._now is not None:
            await self._now.socket.close()
            if self._now.reader is not None:
                await asyncio.wait([self._now.reader])

    async def _once(self, identity: int, frame: str) -> dict[str, Any]:
        connection = await self._connected()
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        connection.asked[identity] = _Asked(answer, len(frame))
        connection.send(frame)
        try:
            return await answer
        finally:
            connection.asked.pop(identity, None)

    async def _connected(self) -> _Connection:
        if self._now is not None and not self._now.socket.closed and not self._closed:
            return self._now
        async with self._connecting:
            if self._closed:
                raise HubUnreachable(f"the client of {self._url} was closed")
            if self._now is None or self._now.socket.closed:
                self._now = _Connection(await self._connect())
                self._now.reader = asyncio.get_running_loop().create_task(_read(self._now))
            return self._now

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        """
        Raises:
            WireError: the hub does not let us in, or there is no hub at this address.
            UserError: its certificate is not trusted.
            Again: it cannot be reached now.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await self._session.ws_connect(self._url, max_msg_size=0, compress=0, heartbeat=_HEARTBEAT_S)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403, 404):
                code = "unauthorized" if error.status == 401 else "refused"
                raise WireError(code, error.status, f"{self._url} refuses the connection: {error.status}") from error
            raise Again(f"status {error.status}") from error
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
            raise UserError(f"{self._url}: its certificate is not trusted: {why}; see `verify`") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Again(str(error) or type(error).__name__) from error


async def _send(connection: _Connection) -> None:
    """Send what is asked for: small requests in lists, so that a thousand episodes cost few frames."""
    while connection.out:
        requests, connection.out = connection.out, []
        try:
            for frame in _frames(requests):
                await connection.socket.send_str(frame)
        except (ConnectionError, aiohttp.ClientError) as error:
            for it in connection.asked.values():
                if not it.answer.done():
                    it.answer.set_exception(Again(str(error) or type(error).__name__))
            return


def _frames(requests: Sequence[str]) -> Iterator[str]:
    together: list[str] = []
    size = 0
    for request in requests:
        if together and (size + len(request) > _LIST_CHARS or len(together) == _MOST_LISTED):
            yield _frame(together)
            together, size = [], 0
        together.append(request)
        size += len(request)
    yield _frame(together)


def _frame(requests: Sequence[str]) -> str:
    return requests[0] if len(requests) == 1 else f"[{','.join(requests)}]"


async def _read(connection: _Connection) -> None:
    """Hand every answer to who waits for it; at the end of the connection, send the others to ask again."""
    asked = connection.asked
    async for message in connection.socket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        rows = from_json(message.data)
        for row in rows if isinstance(rows, list) else (rows,):
            found = asked.get(row.get("id"))
            # Without an id it is about a whole frame that the hub could not read, and nobody else will be told.
            for it in asked.values() if row.get("id") is None else (found,):
                if it is not None and not it.answer.done():
                    it.answer.set_result(row)
    left = [it for it in asked.values() if not it.answer.done()]
    code = connection.socket.close_code
    largest = max((it.size for it in left), default=0)
    for it in left:
        if code == _TOO_BIG and it.size == largest:
            # The hub does not say which frame it was; the smaller ones ask again on the next connection.
            it.answer.set_exception(WireError("body_too_large", 413, "a frame was larger than the hub takes"))
        else:
            it.answer.set_exception(Again(f"the connection was closed ({code})"))
