"""What the dispatcher gives back: a body that is ready to send, or an error that every face can say.

`boundary` is the one place where any exception becomes an error of the wire.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from agenthub.errors import BoxLost, ForkRefused, HostFault, TaskBroken, UnknownName, UserError, WireError

__all__ = ["JSON", "OCTETS", "Answer", "boundary", "digest", "dumps", "error_row", "quick_dumps"]

JSON = "application/json"
OCTETS = "application/octet-stream"
_logger = logging.getLogger("agenthub.server")


@dataclass(frozen=True, slots=True)
class Answer:
    """A body and how to read it."""

    body: bytes
    status: int = 200
    media_type: str = JSON


def dumps(value: Any) -> bytes:
    """JSON values as one line of ASCII; lone surrogates are escaped. Raises ValueError on NaN and infinities."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def quick_dumps(value: Any) -> bytes:
    """JSON values as one line of UTF-8; for rows of ours, whose numbers are finite."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, or a number of more than 64 bits
        return dumps(value)


def digest(body: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def boundary(error: BaseException) -> WireError:
    """The error of the wire that any exception becomes; what is not in our tree is a bug, logged with its traceback."""
    match error:
        case WireError():
            return error
        case UnknownName():
            return WireError("not_found", 404, str(error), {"kind": error.kind, "name": error.name[:200]})
        case ForkRefused():
            return WireError("fork_refused", 409, str(error))
        case UserError():
            return WireError("refused", 422, str(error))
        case TaskBroken() | BoxLost():
            return WireError("env_fault", 422, str(error))
        case HostFault():
            return WireError("infra_fault", 503, str(error))
    _logger.error("bug: %s", error, exc_info=error)
    return WireError("internal", 500, f"a bug of the hub's: {type(error).__name__}; its log has the traceback")


def error_row(error: WireError) -> Mapping[str, Any]:
    """`{"code", "message", "detail"}`."""
    return {"code": error.code, "message": error.message, "detail": error.detail}
