"""One WebSocket to the hub, shared by any number of requests at once, opened again whenever it is lost."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import aiohttp

from agenthub.client.retry import Again, Patience, refusal
from agenthub.errors import WireError

__all__ = ["Socket"]

_CONNECT_S = 10.0
_HEARTBEAT_S = 30.0
_TOO_BIG = 1009


class Socket:
    """Frames out, answers in, in any order."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, budget_s: float) -> None:
        self._session, self._url, self._budget_s = session, url, budget_s
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._connecting = asyncio.Lock()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    async def call(self, op: str, params: str) -> Any:
        """The result of an operation; `params` is the text of a JSON object.

        The same frame is sent again after a lost connection, so the operation must be safe to repeat (all are).

        Raises:
            WireError: the hub refuses.
            HostFault: the hub failed on its side.
            HubUnreachable: no answer within the budget.
        """
        patience = Patience(self._budget_s, self._url)
        while True:
            identity = next(self._ids)
            head = f'{{"id":{identity},"op":"{op}"'
            frame = head + ("}" if params == "{}" else "," + params[1:])
            try:
                answer = await self._once(identity, frame)
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
        """Close the connection; requests that still wait are lost."""
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _once(self, identity: int, frame: str) -> dict[str, Any]:
        socket = await self._connected()
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = answer
        try:
            await socket.send_str(frame)
            return await answer
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Again(str(error) or type(error).__name__) from error
        finally:
            self._waiting.pop(identity, None)

    async def _connected(self) -> aiohttp.ClientWebSocketResponse:
        async with self._connecting:
            if self._socket is not None and not self._socket.closed:
                return self._socket
            try:
                async with asyncio.timeout(_CONNECT_S):
                    self._socket = await self._session.ws_connect(
                        self._url, max_msg_size=0, compress=0, heartbeat=_HEARTBEAT_S
                    )
            except aiohttp.WSServerHandshakeError as error:
                if error.status in (401, 403, 404):
                    raise WireError(
                        "unauthorized" if error.status == 401 else "refused",
                        error.status,
                        f"the hub at {self._url} refuses the connection: {error.status}",
                    ) from error
                raise Again(f"status {error.status}") from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise Again(str(error) or type(error).__name__) from error
            self._reader = asyncio.get_running_loop().create_task(self._read(self._socket))
            return self._socket

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Hand every answer to who waits for it; at the end of the connection, tell the others."""
        mine = self._waiting
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            row = json.loads(message.data)
            waiter = mine.get(row.get("id"))
            if waiter is not None and not waiter.done():
                waiter.set_result(row)
        too_big = socket.close_code == _TOO_BIG
        for waiter in list(mine.values()):
            if waiter.done():
                continue
            if too_big:
                waiter.set_exception(WireError("body_too_large", 413, "a frame was larger than the hub takes"))
            else:
                waiter.set_exception(Again(f"the connection was closed ({socket.close_code})"))
