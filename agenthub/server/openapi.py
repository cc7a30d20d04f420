"""The OpenAPI document, made from the route table and the models that really read the requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agenthub import __version__, wire
from agenthub.server.operations import OPERATIONS

if TYPE_CHECKING:
    from agenthub.server.routes import Route

__all__ = ["document"]

_REFERENCES = "#/components/schemas/{model}"
_ABOUT_THE_HUB: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "/healthz": ("The process lives", "text/plain", (400,)),
    "/readyz": ("Requests are served", "text/plain", (400, 503)),
    "/metrics": ("Counters as Prometheus text", "text/plain", (400, 401, 403)),
    "/openapi.json": ("This document", "application/json", (400, 401, 403)),
}
_ERRORS: Mapping[int, str] = {
    400: "malformed JSON; as plain text where it is no HTTP, or its head is too large",
    401: "no token, or none of this hub's",
    403: "the token has not the scope; without tokens: a foreign host or origin",
    404: "there is none, or it is somebody else's",
    408: "the body did not come in time",
    409: "it does not fit what was done before",
    410: "the episode has ended",
    413: "the body is too large",
    422: "the request is not valid, or cannot be done here",
    429: "not now: a quota or the hub's capacity is used up",
    503: "our side failed, or the hub is stopping",
}
_ALWAYS = (400, 401, 403, 422, 503)
_WITH_BODY = (408, 413)
_OF_OPERATION: Mapping[str, tuple[int, ...]] = {
    "capabilities": (),
    "suites": (),
    "suite": (404,),
    "tasks": (404,),
    "create": (404, 409, 429),
    "step": (404, 409, 410, 429),
    "steps": (),
    "lease": (404, 410),
    "state": (404, 410),
    "trajectory": (404, 409, 410),
    "delete": (404, 410),
    "fork": (404, 409, 410, 429),
    "file_get": (404, 410),
    "file_put": (404, 410),
    "blob_get": (404,),
    "blob_put": (),
    "quarantine": (),
    "release": (404,),
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "seconds after which the same request may do better; detail.retry_after_s says it finer",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def document(routes: Iterable[Route], *, open_to_all: bool = True) -> dict[str, Any]:
    """OpenAPI 3.1 of every route; `open_to_all` where the hub asks for no token."""
    routes = tuple(routes)
    answers = {route.answer for route in routes if route.answer is not None} | {wire.ErrorBody, wire.StepLate}
    ordered = sorted(answers, key=lambda model: model.__name__)
    modes: list[tuple[Any, Literal["validation", "serialization"]]] = [(model, "serialization") for model in ordered]
    _, shared = models_json_schema(modes, ref_template=_REFERENCES)
    schemas: dict[str, Any] = shared["$defs"]
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    for path, (summary, media_type, errors) in _ABOUT_THE_HUB.items():
        served = {"200": _content("served", media_type, {}), **_refusals(errors)}
        if path == "/readyz":
            served["503"] = _content("stopping", media_type, {})
        operation: dict[str, Any] = {"summary": summary, "responses": served}
        if path in ("/healthz", "/readyz"):
            operation["security"] = []
        paths[path] = {"get": operation}
    paths["/v1/ws"] = {"get": _SOCKET | {"responses": {"101": {"description": "frames"}, **_refusals((400, 401, 403))}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "agenthub", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}] if open_to_all else [{"token": []}],
    }


_SOCKET = {
    "operationId": "ws",
    "summary": "A WebSocket for every operation: frames {id, op, ...} are answered with {id, status, result or error}",
}


def _refusals(statuses: Iterable[int]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for status in sorted(statuses):
        rows[str(status)] = _content(_ERRORS[status], "application/json", _ERROR)
        if status == 400:
            rows["400"]["content"]["text/plain"] = {"schema": {"type": "string"}}
        if status in (429, 503):
            rows[str(status)]["headers"] = _RETRY_AFTER
    return rows


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    model = OPERATIONS[route.op]
    schema = model.model_json_schema(ref_template=_REFERENCES)
    schemas.update(schema.pop("$defs", {}))
    in_path = re.findall(r"{(\w+)}", route.path)
    in_query = [] if route.body else [name for name in model.model_fields if name not in in_path]
    properties = schema.get("properties", {})
    required = set(schema.get("required", []))
    operation: dict[str, Any] = {
        "operationId": route.op,
        "summary": route.summary,
        "parameters": [
            {
                "name": name,
                "in": "path" if name in in_path else "query",
                "required": name in required,
                "schema": properties[name],
            }
            for name in [*in_path, *in_query]
        ],
        "responses": {
            str(route.status): _answer(route),
            **_refusals({*_ALWAYS, *(_WITH_BODY if route.body else ()), *_OF_OPERATION[route.op]}),
        },
    }
    if route.body == "json":
        operation["requestBody"] = {
            "required": True,
            **_media("application/json", _without(schema, in_path)),
        }
    if route.body == "octets":
        operation["requestBody"] = {"required": True, **_media("application/octet-stream", {})}
    return operation


_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"$ref": "#/components/schemas/ErrorBody"}}}


def _without(schema: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A body's schema without what the path says."""
    return {
        **schema,
        "properties": {key: value for key, value in schema.get("properties", {}).items() if key not in names},
        "required": [name for name in schema.get("required", []) if name not in names],
    }


def _answer(route: Route) -> dict[str, Any]:
    if route.octets:
        return _content("the octets", "application/octet-stream", {})
    media_type = "application/x-ndjson" if route.op == "steps" else "application/json"
    return _content("done", media_type, _reference(route.answer))


def _reference(model: type[BaseModel] | None) -> dict[str, Any]:
    return {"$ref": _REFERENCES.format(model=model.__name__)} if model else {"type": "object"}


def _content(description: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, **_media(media_type, schema)}


def _media(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}
