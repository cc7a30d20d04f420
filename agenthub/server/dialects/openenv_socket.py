"""OpenEnv's WebSocket: one connection is one session, its messages are answered one after the other.

The episode is ended when the connection is; with `?session_id=` it is that of a session that MCP calls have made, and
goes on without the connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from agenthub.errors import UserError, WireError
from agenthub.server.answers import boundary, dumps
from agenthub.server.dialects import rpc
from agenthub.server.dialects.caller import Callers
from agenthub.server.dialects.openenv import OpenEnv
from agenthub.server.dialects.openenv_messages import opened_row, play, state_of
from agenthub.server.dialects.player import Player
from agenthub.server.dialects.sessions import Session, Sessions
from agenthub.server.params import parse_json

__all__ = ["OpenEnvSocket"]

LEASE_S = 60.0
_HEARTBEAT_S = 30.0
_GOODBYE_S = 0.1
_WAITING = 64
"""Messages that may wait for their answer: the client sends one at a time."""


class OpenEnvSocket:
    """Every connection of the dialect."""

    def __init__(self, openenv: OpenEnv, callers: Callers, sessions: Sessions, max_frame: int) -> None:
        self._openenv, self._callers, self._sessions = openenv, callers, sessions
        self._max_frame = max_frame

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one connection until it ends."""
        socket = web.WebSocketResponse(
            max_msg_size=self._max_frame, compress=False, heartbeat=_HEARTBEAT_S, timeout=_GOODBYE_S
        )
        await socket.prepare(request)
        self._callers.sockets.add(socket)
        session: Session | None = None
        try:
            session = self._attached(request)
            player = session.player if session else self._openenv.player(request, LEASE_S)
            try:
                await self._serve(socket, request, player, session)
            finally:
                if session is None:
                    await asyncio.shield(player.close())
        except UserError as error:
            await _write(socket, _error(error, "SESSION_ERROR"))
        finally:
            self._callers.sockets.discard(socket)
            if session is not None:
                session.attached = False
                self._sessions.touch(session)
                if session.closing:
                    await asyncio.shield(self._sessions.close(session))
            await socket.close()
        return socket

    def _attached(self, request: web.Request) -> Session | None:
        """The session that the address names, for this connection alone. Raises WireError."""
        named = request.query.get("session_id")
        if named is None:
            return None
        session = self._openenv.session(self._callers.of(request), named)
        if session.attached:
            raise WireError("session_attached", 409, f"session {named[:80]} already has a connection")
        session.attached = True
        return session

    async def _serve(
        self, socket: web.WebSocketResponse, request: web.Request, player: Player, session: Session | None
    ) -> None:
        """Read on while a message is worked on: pings are answered only by reading."""
        inbox: asyncio.Queue[WSMessage] = asyncio.Queue(_WAITING)
        work = asyncio.ensure_future(self._work(socket, request, player, session, inbox))
        beat = asyncio.ensure_future(player.beating())
        try:
            async for message in socket:
                if inbox.full() or work.done():
                    break
                inbox.put_nowait(message)
        finally:
            for task in (work, beat):
                task.cancel()
            await asyncio.wait([work, beat])

    async def _work(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        player: Player,
        session: Session | None,
        inbox: asyncio.Queue[WSMessage],
    ) -> None:
        while True:
            message = await inbox.get()
            try:
                answer = await self._answer(message, request, player, session)
            except UserError as error:
                answer = _error(error, "EXECUTION_ERROR")
            except Exception as error:  # the boundary: the connection outlives a bug in one message
                answer = _error(boundary(error), "EXECUTION_ERROR")
            if answer is None:
                await socket.close()
                return
            await _write(socket, answer)

    async def _answer(
        self, message: WSMessage, request: web.Request, player: Player, session: Session | None
    ) -> dict[str, Any] | None:
        """The answer to one message; None where it says goodbye."""
        values = parse_json(message.data) if message.type is WSMsgType.TEXT else None
        if not isinstance(values, dict):
            raise WireError("invalid", 422, "expected a text message, a JSON object")
        kind, data = values.get("type", ""), values.get("data", {})
        if not isinstance(data, dict) or values.keys() - {"type", "data"}:
            raise WireError("invalid", 422, 'expected {"type": ..., "data": {...}} and no other field')
        match kind:
            case "reset":
                return {"type": "observation", "data": opened_row(player, await player.reset(data))}
            case "step":
                return {"type": "observation", "data": await play(player, data)}
            case "state":
                return {"type": "state", "data": await state_of(player)}
            case "mcp":
                return {"type": "mcp", "data": await self._rpc(data, request, player, session)}
            case "close":
                return None
        return {"type": "error", "data": {"message": f"Unknown message type: {kind!r}"[:200], "code": "UNKNOWN_TYPE"}}

    async def _rpc(
        self, data: dict[str, Any], request: web.Request, player: Player, session: Session | None
    ) -> dict[str, Any]:
        try:
            asked = rpc.parse(data)
        except WireError as error:
            return rpc.failure(None, error)
        own = session or Session(id="", owner="", player=player, expires=0.0)
        return await self._openenv.rpc(asked, request, own)


def _error(error: UserError, otherwise: str) -> dict[str, Any]:
    row = boundary(error)
    data: dict[str, Any] = {"message": row.message, "code": otherwise, "error": row.code, "detail": row.detail}
    if row.code == "malformed_json":
        data["code"] = "INVALID_JSON"
    elif row.code == "invalid":
        data |= {"code": "VALIDATION_ERROR", "errors": row.detail}
    elif row.status == 429:
        data["code"] = "CAPACITY_REACHED"
    return {"type": "error", "data": data}


async def _write(socket: web.WebSocketResponse, answer: dict[str, Any]) -> None:
    if not socket.closed:
        try:
            await socket.send_frame(dumps(answer), WSMsgType.TEXT)
        except ConnectionError:
            return
