"""The HTTP application around a dispatcher: faces, guard, errors, and the routes about the hub itself."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agenthub.errors import WireError
from agenthub.server.access import OPERATION_SCOPES, ROUTE_SCOPES, Scope, need
from agenthub.server.answers import JSON, dumps
from agenthub.server.dialects import DIALECT_SCOPES, mount
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.door import Patience, came
from agenthub.server.guard import Guard
from agenthub.server.journal import error_level
from agenthub.server.logs import FACTS, event, request_id
from agenthub.server.openapi import document
from agenthub.server.routes import ROUTES, add_routes, error_response
from agenthub.server.ws import WebSocketFace

__all__ = ["make_app"]

_SCOPES = (
    {(route.method, route.path): OPERATION_SCOPES[route.op] for route in ROUTES}
    | dict(ROUTE_SCOPES)
    | dict(DIALECT_SCOPES)
)
_logger = logging.getLogger("agenthub.requests")
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def make_app(
    dispatcher: Dispatcher, guard: Guard, *, max_body: int, patience: Patience | None = None
) -> web.Application:
    """The application. `max_body` bounds request bodies and WebSocket frames, in bytes."""
    patience = patience or Patience()
    app = web.Application(middlewares=[_middleware(dispatcher, guard, patience.body_s)], client_max_size=max_body)
    add_routes(app, dispatcher)
    sockets = WebSocketFace(dispatcher, max_body, patience.max_unread)
    app.router.add_get("/v1/ws", sockets.handle)
    mount(app, dispatcher, max_frame=max_body)

    async def goodbye(_: web.Application) -> None:
        await sockets.close()

    app.on_shutdown.append(goodbye)
    schema = dumps(document(ROUTES, open_to_all=guard.open))

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if dispatcher.ready else web.Response(text="stopping\n", status=503)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=dispatcher.metrics.render(), headers={"Content-Type": _PROMETHEUS})

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=schema, content_type=JSON)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/openapi.json", openapi)
    return app


def _middleware(dispatcher: Dispatcher, guard: Guard, body_s: float) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing gets past here but a response: every error is JSON, and every response names its request."""
        came(request)
        identity = request_id(request.headers.get("X-Request-Id"))
        FACTS.set({"request_id": identity})
        tracing = dispatcher.journal.tracing
        try:
            with nullcontext() if tracing is None else tracing.under(request.headers):
                response = await _let_in(request, handler, guard, body_s)
        except ConnectionError:
            raise
        except Exception as error:  # the boundary
            response = error_response(_refused(dispatcher, request, error))
        if not response.prepared:
            response.headers["X-Request-Id"] = identity
        return response

    return guarded


async def _let_in(request: web.Request, handler: Handler, guard: Guard, body_s: float) -> web.StreamResponse:
    resource = request.match_info.route.resource
    scope = Scope.ADMIN if resource is None else _scope(request.method, resource.canonical)
    if scope is None:
        return await handler(request)
    who = guard.admit(request)
    if resource is not None:  # else nothing is served here; whoever has no token is not told so
        need(who, scope)
    with guard.inside(who, request):
        if request.can_read_body:
            await _whole_body(request, body_s)
        return await handler(request)


def _refused(dispatcher: Dispatcher, request: web.Request, error: Exception) -> WireError:
    """The error as the hub says it; what an operation raised was counted and logged there."""
    if isinstance(error, WireError) and error.__cause__ is not None:
        return error
    if isinstance(error, web.HTTPException):
        error = _of_http(request, error)
    refused = dispatcher.journal.refusal(error)
    told = {"method": request.method, "path": request.path[:200], "peer": request.remote}
    event(_logger, error_level(refused.status), refused.message[:500], status=refused.status, code=refused.code, **told)
    return refused


async def _whole_body(request: web.Request, body_s: float) -> None:
    """Have the body ready for the handler's `read`.

    Raises:
        WireError: 408 `slow_body`.
        web.HTTPRequestEntityTooLarge: it is larger than the application takes.
    """
    if request.content.is_eof():
        await request.read()
        return
    try:
        async with asyncio.timeout(body_s):
            await request.read()
    except TimeoutError:
        raise WireError("slow_body", 408, f"the request's body did not come within {body_s:g} s") from None


def _scope(method: str, path: str) -> Scope | None:
    """What a route needs; None where it is open to anyone."""
    return _SCOPES.get(("GET" if method == "HEAD" else method, path), Scope.ADMIN)


def _of_http(request: web.Request, error: web.HTTPException) -> WireError:
    """aiohttp's own refusals in the hub's words."""
    match error:
        case web.HTTPRequestEntityTooLarge():
            return WireError("body_too_large", 413, "the request's body is larger than this hub takes")
        case web.HTTPMethodNotAllowed():
            allowed = sorted(error.allowed_methods)
            text = f"{request.method} is not allowed here; expected {', '.join(allowed)}"
            return WireError("method_not_allowed", 405, text, {"allowed": allowed})
        case web.HTTPNotFound():
            return WireError("no_route", 404, f"nothing is served at {request.path[:200]}")
    return WireError("refused", error.status, error.reason)
