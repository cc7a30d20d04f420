"""The OpenAPI document, made from the route table and the models that really read the requests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agenthub import __version__, wire
from agenthub.server.dispatcher import OPERATIONS

if TYPE_CHECKING:
    from agenthub.server.routes import Route

__all__ = ["document"]

_REFERENCES = "#/components/schemas/{model}"
_ABOUT_THE_HUB = {
    "/healthz": ("The process lives", "text/plain"),
    "/readyz": ("Requests are served", "text/plain"),
    "/metrics": ("Counters as Prometheus text", "text/plain"),
    "/openapi.json": ("This document", "application/json"),
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 of every route."""
    routes = tuple(routes)
    answers = {route.answer for route in routes if route.answer is not None} | {wire.ErrorBody, wire.StepLate}
    ordered = sorted(answers, key=lambda model: model.__name__)
    modes: list[tuple[Any, Literal["validation", "serialization"]]] = [(model, "serialization") for model in ordered]
    _, shared = models_json_schema(modes, ref_template=_REFERENCES)
    schemas: dict[str, Any] = shared["$defs"]
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    for path, (summary, media_type) in _ABOUT_THE_HUB.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": _content("served", media_type, {})}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "agenthub", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}],
    }


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
        "responses": {str(route.status): _answer(route), "default": _content("refused", "application/json", _ERROR)},
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
