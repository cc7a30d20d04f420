"""JSON-RPC 2.0 as two of the dialects use it: one request in, one response out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agenthub.errors import UserError, WireError
from agenthub.server.answers import boundary, error_row

__all__ = ["RpcRequest", "failure", "no_method", "parse", "success"]

_CODES = {"malformed_json": -32700, "invalid_request": -32600, "unknown_method": -32601, "invalid": -32602}
_CAPACITY, _INTERNAL, _SERVER = -32000, -32603, -32001


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """A request; a notification where it has no id."""

    method: str
    params: Mapping[str, Any]
    id: str | int | float | None = None
    notification: bool = False


def parse(value: Any) -> RpcRequest:
    """A JSON value as a request.

    Raises:
        WireError: 400 `invalid_request`.
    """
    if not isinstance(value, dict):
        raise WireError("invalid_request", 400, "expected one JSON-RPC request, an object")
    method, params, identity = value.get("method"), value.get("params"), value.get("id")
    if value.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise WireError("invalid_request", 400, 'expected "jsonrpc": "2.0" and a method')
    if not isinstance(params if params is not None else {}, dict):
        raise WireError("invalid_request", 400, "params: expected an object")
    if isinstance(identity, bool) or not isinstance(identity, str | int | float | None):
        raise WireError("invalid_request", 400, "id: expected a string or a number")
    return RpcRequest(method, params or {}, identity, "id" not in value)


def success(identity: Any, result: Mapping[str, Any]) -> dict[str, Any]:
    """The response with a result."""
    return {"jsonrpc": "2.0", "id": identity, "result": dict(result)}


def failure(identity: Any, error: WireError | UserError) -> dict[str, Any]:
    """The response with an error; `data` is the hub's own error row."""
    refused = boundary(error)
    code = _CODES.get(refused.code, _SERVER)
    if refused.status == 429:
        code = _CAPACITY
    elif refused.status >= 500:
        code = _INTERNAL
    elif refused.code == "not_found":
        code = _CODES["invalid"]
    row = {"code": code, "message": refused.message, "data": dict(error_row(refused))}
    return {"jsonrpc": "2.0", "id": identity, "error": row}


def no_method(method: str) -> WireError:
    """A method that is not served."""
    return WireError("unknown_method", 404, f"method not found: {method[:80]}")
