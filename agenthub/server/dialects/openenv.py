"""OpenEnv 0.10 over the hub's episodes: what its messages say, and its routes. Its sockets are `openenv_socket`'s.

A suite is an environment: give OpenEnv's client `base_url="http://host:port/openenv/SUITE"`. A step's reward is that
step's alone; an episode that ends without a reward is an error, never a reward of 0.

OpenEnv's own routes /reset, /step and /state hold no episode from one request to the next. Here they do: an episode is
named by `episode_id`, the client's own of /reset or the one that it answers with, in /step and /state.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from agenthub.errors import UnknownName, UserError, WireError
from agenthub.server.answers import JSON, dumps
from agenthub.server.dialects.caller import Caller, Callers
from agenthub.server.dialects.openenv_messages import ActionIn, opened_row, play, refused, state_of, tool_rows
from agenthub.server.dialects.player import Player
from agenthub.server.dialects.rpc import RpcRequest, failure, no_method, success
from agenthub.server.dialects.rpc import parse as parse_rpc
from agenthub.server.dialects.sessions import Session, Sessions
from agenthub.server.params import parse_json, read
from agenthub.wire import MAX_TURN_SECONDS

__all__ = ["OpenEnv"]

LEASE_S = 600.0
"""Of an episode without a socket: nothing tells that its client lives but its requests."""


class StepIn(BaseModel):
    """Body of POST /step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: dict[str, Any]
    episode_id: str = Field(max_length=255)
    timeout_s: float | None = Field(default=None, gt=0, le=MAX_TURN_SECONDS)
    request_id: str | None = Field(default=None, max_length=255)


class TasksIn(BaseModel):
    """Bodies of the routes that tell of tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    index: int | None = None
    start: int | None = None
    stop: int | None = None


class OpenEnv:
    """The routes of every suite."""

    def __init__(self, callers: Callers, sessions: Sessions) -> None:
        self._callers, self._sessions = callers, sessions

    def add_routes(self, app: web.Application) -> None:
        """Serve below /openenv/{suite}."""
        add, at = app.router.add_route, "/openenv/{suite}"
        for method, path, handler in (
            ("GET", "/health", self._health),
            ("GET", "/metadata", self._metadata),
            ("GET", "/schema", self._schema),
            ("GET", "/state", self._state),
            ("POST", "/reset", self._reset),
            ("POST", "/step", self._step),
            ("POST", "/mcp", self._mcp),
            ("GET", "/list_environments", self._environments),
            ("GET", "/{env}/splits", self._splits),
            ("POST", "/{env}/{asked:tasks|num_tasks|task|task_range}", self._tasks),
        ):
            add(method, at + path, _answered(handler))

    async def _health(self, request: web.Request) -> dict[str, Any]:
        await self._suite(request)
        return {"status": "healthy" if self._callers.dispatcher.ready else "degraded"}

    async def _metadata(self, request: web.Request) -> dict[str, Any]:
        row = await self._suite(request)
        return {"name": row["name"], "description": row["description"], "version": row["version"]}

    async def _schema(self, request: web.Request) -> dict[str, Any]:
        await self._suite(request)
        step = {"type": "object", "properties": {"text": {"type": "string"}, "observations": {"type": "array"}}}
        first = {"type": "object", "properties": {"messages": {"type": "array"}, "tools": {"type": "array"}}}
        state = {"episode_id": {"type": ["string", "null"]}, "step_count": {"type": "integer", "minimum": 0}}
        return {
            "action": ActionIn.model_json_schema(),
            "observation": step,
            "state": {"type": "object", "properties": state},
            "reset_observation": first,
        }

    async def _reset(self, request: web.Request) -> dict[str, Any]:
        caller, values = self._callers.of(request), await _body(request)
        name = values.get("episode_id")
        found = self._sessions.get(caller.owner, f"episode:{name}") if isinstance(name, str) else None
        player = found.player if found else self.player(request, LEASE_S)
        opened = await player.reset(values)
        if found is None:
            self._sessions.add(caller.owner, player, id=f"episode:{player.name}")
        return opened_row(player, opened)

    async def _step(self, request: web.Request) -> dict[str, Any]:
        asked = read(StepIn, await _body(request))
        return await play(self._named(request, asked.episode_id).player, asked.action, asked.timeout_s)

    async def _state(self, request: web.Request) -> dict[str, Any]:
        name = request.query.get("episode_id")
        return await state_of(self._named(request, name).player) if name else {"episode_id": None, "step_count": 0}

    async def _mcp(self, request: web.Request) -> dict[str, Any]:
        try:
            asked = parse_rpc(parse_json(await request.read()))
        except WireError as error:
            return failure(None, error)
        return await self.rpc(asked, request)

    async def rpc(self, asked: RpcRequest, request: web.Request, own: Session | None = None) -> dict[str, Any]:
        """The response to one JSON-RPC request; `own` is the session of the socket that it came through."""
        try:
            return success(asked.id, await self._called(asked, request, own))
        except UserError as error:
            return failure(asked.id, error)

    async def _called(self, asked: RpcRequest, request: web.Request, own: Session | None) -> dict[str, Any]:
        caller, params = self._callers.of(request), asked.params
        if asked.method == "openenv/session/create":
            if own is not None:
                return {"session_id": own.id}
            player = self.player(request, LEASE_S)
            wanted = {key: value for key, value in params.items() if key != "session_id"}
            # OpenEnv's client names no task here and resets next: an episode by chance would be one for nothing.
            if wanted:
                await player.reset(wanted)
            try:
                return {"session_id": self._sessions.add(caller.owner, player).id}
            except WireError:
                await player.close()
                raise
        if asked.method == "openenv/session/close":
            return await self._close(caller, params, own)
        if asked.method not in ("tools/list", "tools/call"):
            raise no_method(asked.method)
        session = own or self.session(caller, params.get("session_id"))
        if asked.method == "tools/list":
            await session.player.ensure()
            return {"tools": tool_rows(session.player, "inputSchema")}
        name, arguments = params.get("name"), params.get("arguments") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise WireError("invalid", 422, "name: expected a string; arguments: expected an object")
        done = await session.player.call_tool(name, arguments)
        content = [{"type": "text", "text": done.text}]
        return {"content": content, "isError": done.failed, "structuredContent": done.facts, "data": done.text}

    async def _close(self, caller: Caller, params: Mapping[str, Any], own: Session | None) -> dict[str, Any]:
        session = self.session(caller, params.get("session_id"))
        if session is own or session.attached:
            session.closing = True
            return {"session_id": session.id, "closing": True}
        await self._sessions.close(session)
        return {"session_id": session.id, "closed": True}

    def session(self, caller: Caller, id: Any) -> Session:
        """The caller's session. Raises WireError 422 where there is none."""
        if not isinstance(id, str):
            raise WireError("invalid", 422, "session_id: expected that of openenv/session/create")
        found = self._sessions.get(caller.owner, id)
        if found is None:
            raise WireError("invalid", 422, f"unknown session_id: {id[:80]}")
        return found

    def player(self, request: web.Request, lease_s: float) -> Player:
        """A new player for the client of a request."""
        return Player(self._callers.of(request).operate, request.match_info["suite"], lease_s=lease_s)

    def _named(self, request: web.Request, name: str) -> Session:
        found = self._sessions.get(self._callers.of(request).owner, f"episode:{name}")
        if found is None:
            raise WireError("unknown_episode", 404, f"no episode of yours is named {name[:80]!r}: reset first")
        return found

    async def _suite(self, request: web.Request) -> dict[str, Any]:
        answer = await self._callers.of(request).operate("suite", {"suite": request.match_info["suite"]})
        return dict(json.loads(answer.body))

    async def _environments(self, request: web.Request) -> list[str]:
        return [(await self._suite(request))["name"]]

    async def _splits(self, request: web.Request) -> list[dict[str, str]]:
        suite = await self._suite(_own_suite(request))
        kinds = {"val": "validation", "validation": "validation", "test": "test", "eval": "test"}
        return [{"name": split, "type": kinds.get(split, "train")} for split in suite["splits"]]

    async def _tasks(self, request: web.Request) -> dict[str, Any]:
        asked = read(TasksIn, await _body(_own_suite(request)))
        kind, operate = request.match_info["asked"], self._callers.of(request).operate
        total = int((await self._suite(request))["splits"].get(asked.split, 0))
        first, last = 0, total
        if kind == "num_tasks":
            return {"num_tasks": total}
        if kind == "task":
            if asked.index is None or not 0 <= asked.index < total:
                raise WireError("bad_index", 400, f"index: expected 0 to {total - 1}")
            first, last = asked.index, asked.index + 1
        if kind == "task_range":
            first, last, _ = slice(asked.start, asked.stop).indices(total)
        rows: list[Any] = []
        while first + len(rows) < last:
            page = {"offset": first + len(rows), "limit": min(1000, last - first - len(rows))}
            answer = await operate("tasks", {"suite": request.match_info["suite"], "split": asked.split} | page)
            rows += json.loads(answer.body)["tasks"]
        if kind == "task":
            return {"task": rows[0]}
        return {"tasks": rows} | ({"env_name": request.match_info["env"]} if kind == "tasks" else {})


def _own_suite(request: web.Request) -> web.Request:
    suite, named = request.match_info["suite"], request.match_info["env"]
    if named != suite:
        raise UnknownName("environment", named, [suite])
    return request


def _answered(handler: Callable[[web.Request], Awaitable[Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            return web.Response(body=dumps(await handler(request)), content_type=JSON)
        except UserError as error:
            return refused(error)

    return handle


async def _body(request: web.Request) -> dict[str, Any]:
    data = await request.read()
    values = parse_json(data) if data.strip() else {}
    if not isinstance(values, dict):
        raise WireError("invalid", 422, f"expected a JSON object, got {type(values).__name__}")
    return values
