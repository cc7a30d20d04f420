"""The HTTP application around a dispatcher: faces, guard, errors, and the routes about the hub itself."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agenthub.errors import WireError
from agenthub.server.access import OPERATION_SCOPES, ROUTE_SCOPES, Scope, need
from agenthub.server.answers import JSON, dumps
from agenthub.server.dialects import DIALECT_SCOPES, mount
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.guard import Guard
from agenthub.server.openapi import document
from agenthub.server.routes import ROUTES, add_routes, error_response
from agenthub.server.ws import WebSocketFace

__all__ = ["make_app"]

_SCOPES = (
    {(route.method, route.path): OPERATION_SCOPES[route.op] for route in ROUTES}
    | dict(ROUTE_SCOPES)
    | dict(DIALECT_SCOPES)
)
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def make_app(dispatcher: Dispatcher, guard: Guard, *, max_body: int) -> web.Application:
    """The application. `max_body` bounds request bodies and WebSocket frames, in bytes."""
    app = web.Application(middlewares=[_middleware(dispatcher, guard)], client_max_size=max_body)
    add_routes(app, dispatcher)
    sockets = WebSocketFace(dispatcher, max_body)
    app.router.add_get("/v1/ws", sockets.handle)
    mount(app, dispatcher, max_frame=max_body)

    async def goodbye(_: web.Application) -> None:
        await sockets.close()

    app.on_shutdown.append(goodbye)
    schema = dumps(document(ROUTES))

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if dispatcher.ready else web.Response(text="stopping\n", status=503)

    async def metrics(request: web.Request) -> web.Response:
        text = dispatcher.metrics.render(len(dispatcher.table), dispatcher.admission.held_mb)
        return web.Response(body=text.encode(), headers={"Content-Type": _PROMETHEUS})

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=schema, content_type=JSON)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/openapi.json", openapi)
    return app


def _middleware(dispatcher: Dispatcher, guard: Guard) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing gets past here but a response: every error is JSON."""
        try:
            resource = request.match_info.route.resource
            scope = Scope.ADMIN if resource is None else _scope(request.method, resource.canonical)
            if scope is None:
                return await handler(request)
            who = guard.admit(request)
            if resource is not None:  # else nothing is served here; whoever has no token is not told so
                need(who, scope)
            with guard.inside(who, request):
                return await handler(request)
        except WireError as error:
            return error_response(error)
        except web.HTTPException as error:
            return error_response(_of_http(request, error))
        except ConnectionError:
            raise
        except Exception as error:  # the boundary
            return error_response(dispatcher.refusal(error))

    return guarded


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
