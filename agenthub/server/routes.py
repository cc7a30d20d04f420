"""The first face: routes. One table says method, path, operation and answer; the OpenAPI document is made from it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from agenthub import wire
from agenthub.errors import WireError
from agenthub.server.answers import JSON, Answer, dumps, error_row
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.guard import principal
from agenthub.server.logs import FACTS
from agenthub.server.params import parse_json

__all__ = ["ROUTES", "Route", "add_routes", "error_response"]

NDJSON = "application/x-ndjson"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation's route."""

    method: str
    path: str
    op: str
    summary: str
    answer: type[BaseModel] | None = None
    """Model of the answer; None where it is free JSON or octets."""
    body: str = ""
    """json, octets, or empty for none."""
    status: int = 200
    octets: bool = False
    """The answer is octets and not JSON."""


ROUTES = (
    Route("GET", "/v1/capabilities", "capabilities", "What this hub can do"),
    Route("GET", "/v1/suites", "suites", "Suites"),
    Route("GET", "/v1/suites/{suite}", "suite", "One suite"),
    Route("GET", "/v1/suites/{suite}/tasks", "tasks", "A page of a suite's tasks"),
    Route("POST", "/v1/episodes", "create", "Open episodes", wire.EpisodesCreated, "json", 201),
    Route("GET", "/v1/episodes/{episode}", "state", "Where an episode is", wire.EpisodeState),
    Route("DELETE", "/v1/episodes/{episode}", "delete", "End an episode", wire.EpisodeState),
    Route("POST", "/v1/episodes/{episode}/step", "step", "Play one turn", wire.StepDone, "json"),
    Route("POST", "/v1/episodes/{episode}/lease", "lease", "Begin the lease anew", None, "json"),
    Route("POST", "/v1/episodes/{episode}/fork", "fork", "Copy an episode", wire.EpisodesCreated, "json", 201),
    Route("GET", "/v1/episodes/{episode}/trajectory", "trajectory", "The record of a finished episode"),
    Route("GET", "/v1/episodes/{episode}/files/{path}", "file_get", "Read a file", octets=True),
    Route("PUT", "/v1/episodes/{episode}/files/{path}", "file_put", "Write a file", None, "octets"),
    Route("GET", "/v1/blobs/{sha256}", "blob_get", "Read a blob", octets=True),
    Route("PUT", "/v1/blobs/{sha256}", "blob_put", "Keep a blob", None, "octets", 201),
    Route("POST", "/v1/steps", "steps", "Play a batch of turns, answered as NDJSON", wire.StepDone, "json"),
    Route("GET", "/v1/quarantine", "quarantine", "Tasks that are not played because they are broken"),
    Route("DELETE", "/v1/quarantine/{suite}/{task}", "release", "Play a task again"),
)


def error_response(error: WireError) -> web.Response:
    """An error as a response."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.status in (429, 503):
        headers["Retry-After"] = str(retry_after_s(error))
    return web.Response(
        body=dumps({"error": dict(error_row(error))}), status=error.status, content_type=JSON, headers=headers
    )


def retry_after_s(error: WireError) -> int:
    """Whole seconds after which a refused request may do better, from `detail.retry_after_s`; 1 where none is said."""
    said = error.detail.get("retry_after_s") if isinstance(error.detail, Mapping) else None
    return max(1, math.ceil(said)) if isinstance(said, int | float) else 1


def add_routes(app: web.Application, dispatcher: Dispatcher) -> None:
    """Serve every operation of the table."""
    for route in ROUTES:
        path = route.path.replace("{path}", "{path:.+}").replace("{suite}/{task}", "{suite}/{task:.+}")
        handler = _batch(dispatcher) if route.op == "steps" else _single(dispatcher, route)
        app.router.add_route(route.method, path, handler)


def _single(dispatcher: Dispatcher, route: Route) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        values = await _values(request, route.body)
        answer: Answer = await dispatcher.dispatch(route.op, values, principal(request))
        return web.Response(body=answer.body, status=answer.status, content_type=answer.media_type)

    return handle


def _batch(dispatcher: Dispatcher) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        async with aclosing(dispatcher.steps(await _values(request, "json"), principal(request))) as lines:
            first = await anext(lines)  # a batch that is not valid is refused before the response begins
            response = web.StreamResponse(headers={"Content-Type": NDJSON, "X-Request-Id": FACTS.get()["request_id"]})
            await response.prepare(request)
            await response.write(_ndjson(first))
            async for ready in lines:
                await response.write(_ndjson(ready))
            await response.write_eof()
            return response

    return handle


def _ndjson(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n"


async def _values(request: web.Request, body: str) -> dict[str, Any]:
    """Path, query and body of a request as one object of parameters.

    Raises:
        WireError: 400 malformed JSON, 413 too large, 422 a name comes twice.
    """
    places: dict[str, Any] = dict(request.match_info)
    for key, value in request.query.items():
        if key in places:
            raise WireError("invalid", 422, f"{key[:80]}: given twice")
        places[key] = value
    if body == "octets":
        return places | {"data": await request.read()}
    if body != "json":
        return places
    given = parse_json(await request.read())
    if not isinstance(given, dict):
        raise WireError("invalid", 422, f"expected a JSON object, got {type(given).__name__}")
    twice = places.keys() & given.keys()
    if twice:
        raise WireError("invalid", 422, f"{min(twice)}: unknown field (the address already says it)")
    return places | given
