"""Putting every dialect into the application, and what each of its routes asks of a token."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from agenthub.server.access import Scope
from agenthub.server.dialects.caller import Callers
from agenthub.server.dialects.kimina import KIMINA_ROUTES, Kimina
from agenthub.server.dialects.mcp import Mcp
from agenthub.server.dialects.openenv import OpenEnv
from agenthub.server.dialects.openenv_socket import OpenEnvSocket
from agenthub.server.dialects.sandboxfusion import SandboxFusion
from agenthub.server.dialects.search_r1 import SearchR1
from agenthub.server.dialects.sessions import Sessions
from agenthub.server.dispatcher import Dispatcher

__all__ = ["DIALECT_SCOPES", "mount"]

_MOST_SESSIONS = 65_536
_ROUTES = (
    *(("GET", f"/openenv/{{suite}}/{name}") for name in ("health", "metadata", "schema", "state", "ws")),
    ("GET", "/openenv/{suite}/list_environments"),
    ("GET", "/openenv/{suite}/{env}/splits"),
    *(("POST", f"/openenv/{{suite}}/{name}") for name in ("reset", "step", "mcp")),
    ("POST", "/openenv/{suite}/{env}/{asked}"),
    ("POST", "/mcp/{suite}"),
    ("DELETE", "/mcp/{suite}"),
    ("POST", "/sandboxfusion/run_code"),
    *KIMINA_ROUTES,
    ("POST", "/retrieve"),
    ("POST", "/retrieve/{suite}"),
)
DIALECT_SCOPES: Mapping[tuple[str, str], Scope] = {route: Scope.PLAY for route in _ROUTES}
"""By method and path, as the router writes it."""


def mount(app: web.Application, dispatcher: Dispatcher, *, max_frame: int) -> None:
    """Serve the dialects beside the hub's own routes, behind the same guard. `max_frame` is in bytes."""
    callers = Callers(dispatcher)
    sessions = Sessions(_MOST_SESSIONS)
    openenv = OpenEnv(callers, sessions)
    openenv.add_routes(app)
    app.router.add_get("/openenv/{suite}/ws", OpenEnvSocket(openenv, callers, sessions, max_frame).handle)
    Mcp(callers, Sessions(_MOST_SESSIONS)).add_routes(app)
    SandboxFusion(callers).add_routes(app)
    Kimina(callers).add_routes(app)
    SearchR1(callers).add_routes(app)

    async def goodbye(_: web.Application) -> None:
        await callers.goodbye()

    app.on_shutdown.append(goodbye)
