"""Parameters of the operations that are not wire models of their own, and how a request becomes one of them.

An operation has one model whatever face it came through: a route joins its path, query and body into it, a WebSocket
frame is it.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError
from pydantic_core import from_json

from agenthub.errors import WireError, nearest
from agenthub.wire import Heartbeat

__all__ = [
    "BlobPut",
    "BlobRef",
    "EpisodeRef",
    "FilePut",
    "FileRef",
    "ForkOf",
    "LeaseOf",
    "Nothing",
    "SuiteRef",
    "TaskPage",
    "TaskRef",
    "canonical_json",
    "parse_json",
    "read",
]

Model = TypeVar("Model", bound=BaseModel)


def _octets(value: Any) -> Any:
    """Octets as they are (a route's body), or from base64 (a frame)."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


Octets = Annotated[bytes, BeforeValidator(_octets)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Id = Annotated[str, Field(max_length=200)]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(_Params):
    """No parameters."""


class SuiteRef(_Params):
    """A suite by name."""

    suite: Id


class TaskRef(SuiteRef):
    """A task of a suite."""

    task: Id


class TaskPage(SuiteRef):
    """A page of a suite's tasks."""

    split: Id | None = None
    offset: int = Field(0, ge=0)
    limit: int = Field(100, ge=1, le=1000)


class EpisodeRef(_Params):
    """An episode by id."""

    episode: Id


class LeaseOf(Heartbeat, EpisodeRef):
    """A heartbeat and its episode."""


class ForkOf(EpisodeRef):
    """Body of POST /v1/episodes/{id}/fork."""

    request_id: str = Field(min_length=1, max_length=200)
    count: StrictInt = Field(1, ge=1, le=1024)
    turn: StrictInt | None = Field(None, ge=0)


class FileRef(EpisodeRef):
    """A file of an episode's workspace."""

    path: str = Field(min_length=1, max_length=4096)


class FilePut(FileRef):
    """A file's new content; base64 where it comes in a frame."""

    data: Octets


class BlobRef(_Params):
    """A blob by its content's hash."""

    sha256: Sha256


class BlobPut(BlobRef):
    """A blob; base64 where it comes in a frame."""

    data: Octets


def parse_json(data: bytes | str) -> Any:
    """A JSON document. NaN, infinities, lone surrogates, more than 200 levels and 4,300 digits are refused.

    Raises:
        WireError: 400 `malformed_json` with line and column.
    """
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise WireError("malformed_json", 400, f"the body is not JSON: {error}") from None


def read(model: type[Model], values: Any) -> Model:
    """`values` as a request model.

    Raises:
        WireError: 422 `invalid`; the message names the first field that is wrong, `detail` all of them.
    """
    if not isinstance(values, dict):
        raise WireError("invalid", 422, f"expected a JSON object, got {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(model, row) for row in error.errors(include_url=False, include_input=False)]
        first = f"{problems[0]['field'] or 'request'}: {problems[0]['problem']}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WireError("invalid", 422, first + more, problems[:32]) from None


def _problem(model: type[BaseModel], row: Any) -> dict[str, str]:
    place = [str(part)[:80] for part in row["loc"]]
    text = str(row["msg"]).removeprefix("Value error, ")
    if row["type"] == "extra_forbidden":
        text = "unknown field" + (nearest(place[0], model.model_fields) if len(place) == 1 else "")
    return {"field": ".".join(place), "problem": text}


def canonical_json(model: BaseModel) -> bytes:
    """The one JSON text of a request: keys sorted, absent fields filled in.

    Raises:
        WireError: 400 `malformed_json`: a number is too large to be a float.
    """
    try:
        text = _CANONICAL.encode(model.model_dump())
    except ValueError:
        raise WireError("malformed_json", 400, "the body is not JSON: a number is out of range") from None
    return text.encode("ascii")
