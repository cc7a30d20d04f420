"""The Model Context Protocol over streamable HTTP: a session is an episode, its tools are the task's.

At /mcp/{suite}, with `?task=` or `?seed=` (and `split`, `group`, `lease_s`) to say which one. `initialize` opens the
episode and tells its prompt as `instructions`; a tool call is a turn; the tool `submit_answer` ends it. Results carry
the reward in `structuredContent`. DELETE ends the session; one that is not used ends with its lease.

Of the protocol this is the part that a tool server needs (initialize, ping, tools), in the revisions that open with
`initialize`; every answer is one JSON document, there is no stream from the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agenthub import __version__
from agenthub.errors import UserError, WireError
from agenthub.server.answers import JSON, dumps
from agenthub.server.dialects import rpc
from agenthub.server.dialects.caller import Callers
from agenthub.server.dialects.player import Player
from agenthub.server.dialects.sessions import Session, Sessions
from agenthub.server.params import parse_json

__all__ = ["PROTOCOLS", "Mcp"]

PROTOCOLS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LEASE_S = 600.0
_SESSION, _VERSION = "Mcp-Session-Id", "MCP-Protocol-Version"
_FACTS_SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "What the tool showed."},
        "failed": {"type": "boolean"},
        "reward": {"type": ["number", "null"], "description": "Of this turn alone."},
        "rewards": {"type": "object"},
        "done": {"type": "boolean", "description": "The episode has ended."},
    },
    "required": ["text", "reward", "done"],
}


class Mcp:
    """The endpoint of every suite."""

    def __init__(self, callers: Callers, sessions: Sessions) -> None:
        self._callers, self._sessions = callers, sessions

    def add_routes(self, app: web.Application) -> None:
        """Serve at /mcp/{suite}."""
        app.router.add_post("/mcp/{suite}", self._post)
        app.router.add_delete("/mcp/{suite}", self._delete)

    async def _post(self, request: web.Request) -> web.Response:
        """One JSON-RPC message: a request is answered, a notification or a response is taken."""
        try:
            value = parse_json(await request.read())
            if isinstance(value, dict) and "method" not in value and ("result" in value or "error" in value):
                return web.Response(status=202)
            asked = rpc.parse(value)
        except WireError as error:
            return _json(rpc.failure(None, error), 400)
        try:
            if asked.method == "initialize":
                return await self._initialize(asked, request)
            session = self._session(request)
            if asked.notification:
                return web.Response(status=202)
            return _json(rpc.success(asked.id, await self._called(asked, session)))
        except _NoSession as error:
            return _json(rpc.failure(asked.id, error), error.status)
        except UserError as error:
            return _json(rpc.failure(asked.id, error))

    async def _delete(self, request: web.Request) -> web.Response:
        try:
            await self._sessions.close(self._session(request))
        except WireError as error:
            return _json(rpc.failure(None, error), error.status)
        return web.Response(status=204)

    async def _initialize(self, asked: rpc.RpcRequest, request: web.Request) -> web.Response:
        caller = self._callers.of(request)
        player = Player(caller.operate, request.match_info["suite"], lease_s=LEASE_S)
        opened = await player.reset(_reset_of(request.query))
        try:
            session = self._sessions.add(caller.owner, player)
        except WireError:
            await player.close()
            raise
        wanted = asked.params.get("protocolVersion")
        version = wanted if wanted in PROTOCOLS else PROTOCOLS[-1]
        messages = opened.observation["messages"]
        result = {
            "protocolVersion": version,
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "agenthub", "version": __version__},
            "instructions": "\n\n".join(str(message["content"]) for message in messages),
            "_meta": {"agenthub/episode": {"id": opened.id, "messages": messages} | opened.info},
        }
        return _json(rpc.success(asked.id, result), headers={_SESSION: session.id})

    async def _called(self, asked: rpc.RpcRequest, session: Session) -> dict[str, Any]:
        player = session.player
        match asked.method:
            case "ping":
                await player.beat()
                return {}
            case "tools/list":
                await player.beat()
                return {"tools": [_tool(tool.name, tool.description, tool.parameters) for tool in player.tools]}
            case "tools/call":
                name, arguments = asked.params.get("name"), asked.params.get("arguments") or {}
                if not isinstance(name, str) or not isinstance(arguments, dict):
                    raise WireError("invalid", 422, "name: expected a string; arguments: expected an object")
                done = await player.call_tool(name, arguments)
                content = [{"type": "text", "text": done.text}]
                return {"content": content, "isError": done.failed, "structuredContent": done.facts}
        raise rpc.no_method(asked.method)

    def _session(self, request: web.Request) -> Session:
        """The session that the headers name. Raises _NoSession."""
        version = request.headers.get(_VERSION)
        if version is not None and version not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise _NoSession("invalid_request", 400, f"{_VERSION}: {version[:40]!r}; expected one of {known}")
        named = request.headers.get(_SESSION)
        if named is None:
            raise _NoSession("invalid_request", 400, f"no {_SESSION} header: initialize first")
        session = self._sessions.get(self._callers.of(request).owner, named)
        if session is None or session.player.suite != request.match_info["suite"]:
            raise _NoSession("no_session", 404, "the session has ended, or never was: initialize again")
        return session


class _NoSession(WireError):
    """What the protocol says with an HTTP status, and not within JSON-RPC."""


def _tool(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object"} | dict(parameters)
    return {"name": name, "description": description, "inputSchema": schema, "outputSchema": _FACTS_SCHEMA}


def _reset_of(query: Mapping[str, str]) -> dict[str, Any]:
    """The address's parameters as a reset's; a number that is none is refused there."""
    values: dict[str, Any] = dict(query)
    for name, kind in (("seed", int), ("member", int), ("lease_s", float)):
        if name in values:
            try:
                values[name] = kind(values[name])
            except ValueError:
                raise WireError("invalid", 422, f"{name}: expected a number") from None
    return values


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=dumps(value), status=status, content_type=JSON, headers=headers)
