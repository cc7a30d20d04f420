"""Records to JSON values and back, and the hash of a trajectory.

Owns the mapping between `records` and JSON: arrays are lists, parts carry their type, enums are their values.
Decoding is strict: an unknown or missing field raises ValueError with its path.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from agenthub import records

__all__ = ["canonical", "decode", "encode", "observation_hash", "trajectory_hash"]

T = TypeVar("T")
_PARTS: dict[str, type] = {"text": records.Text, "image": records.ImageRef, "blob": records.Blob}
_PLAIN = frozenset({str, int, float, bool, type(None)})
_ENCODERS: dict[type, Callable[[Any], Any]] = {}
_PART_NAMES = {cls: name for name, cls in _PARTS.items()}


def encode(value: Any) -> Any:
    """A record as JSON values. Part records carry `type`: text, image or blob."""
    kind = type(value)
    if kind in _PLAIN:  # by far the most; the hub encodes every answer and every trajectory
        return value
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        encoder = _ENCODERS[kind] = _encoder(kind)
    return encoder(value)


def _encoder(kind: type) -> Callable[[Any], Any]:
    """What makes JSON values of the instances of a type."""
    if dataclasses.is_dataclass(kind):
        return _record_encoder(kind)
    if issubclass(kind, StrEnum):
        return lambda value: value.value
    if issubclass(kind, np.ndarray):
        return lambda value: value.tolist()
    if issubclass(kind, Mapping):
        return lambda value: {str(key): encode(item) for key, item in value.items()}
    if issubclass(kind, list | tuple):
        return lambda value: [encode(item) for item in value]
    if issubclass(kind, np.generic):
        return lambda value: value.item()
    return lambda value: value


def _record_encoder(kind: type) -> Callable[[Any], Any]:
    names = _names(kind)
    values = operator.attrgetter(*names) if len(names) > 1 else lambda record: (getattr(record, names[0]),)
    first = {"type": _PART_NAMES[kind]} if kind in _PART_NAMES else {}
    return lambda record: first | dict(zip(names, map(encode, values(record)), strict=True))


def decode(cls: type[T], value: Any, path: str = "") -> T:
    """The record that `encode` made.

    Raises:
        ValueError: a field is unknown, missing or of the wrong type; the message starts with its path.
    """
    return typing.cast(T, _decode(cls, value, path or cls.__name__.lower()))


@functools.cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(spec.name for spec in dataclasses.fields(cls))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, vars(records))


def _decode_record(cls: type, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: expected an object, got {type(value).__name__}")
    hints = _hints(cls)
    row = {key: item for key, item in value.items() if not (key == "type" and cls in _PART_NAMES)}
    unknown = [key for key in row if key not in hints]
    if unknown:
        raise ValueError(f"{path}.{unknown[0]}: unknown field")
    out = {key: _decode(hints[key], item, f"{path}.{key}") for key, item in row.items()}
    try:
        return cls(**out)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _decode(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint == records.Part:
        kind = value.get("type") if isinstance(value, Mapping) else None
        if kind not in _PARTS:
            raise ValueError(f"{path}.type is {kind!r}; expected one of {', '.join(_PARTS)}")
        return _decode_record(_PARTS[kind], value, path)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _decode(inner, value, path)
    if origin is np.ndarray:
        return _decode_array(hint, value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path}: expected a list, got {type(value).__name__}")
        if arguments[-1] is Ellipsis:
            return tuple(_decode(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
        if len(value) != len(arguments):
            raise ValueError(f"{path}: expected {len(arguments)} values, got {len(value)}")
        return tuple(_decode(a, item, f"{path}[{i}]") for i, (a, item) in enumerate(zip(arguments, value, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path}: expected an object, got {type(value).__name__}")
        return records.frozen({key: _decode(arguments[1], item, f"{path}.{key}") for key, item in value.items()})
    if dataclasses.is_dataclass(hint):
        return _decode_record(typing.cast(type, hint), value, path)
    return _decode_plain(hint, value, path)


def _decode_array(hint: Any, value: Any, path: str) -> Any:
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"{path}: expected a list of numbers, got {type(value).__name__}")
    try:
        return records.ints(value) if hint == records.Ints else records.floats(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from None


def _decode_plain(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            raise ValueError(f"{path} is {value!r}; expected one of {', '.join(hint)}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{path}: expected {hint.__name__}, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}, not finite")
    return value


def canonical(value: Any) -> bytes:
    """The one byte string of a record or JSON value: sorted keys, no spaces, UTF-8, surrogates escaped."""
    text = json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def observation_hash(observation: records.Observation) -> str:
    """SHA-256 of what an observation shows; ids are left out."""
    row = encode(observation)
    row.pop("call_id")
    return hashlib.sha256(canonical(row)).hexdigest()


def trajectory_hash(trajectory: records.Trajectory) -> str:
    """SHA-256 of what happened: everything but ids (group, member, parent, call ids) and times."""
    row = encode(trajectory)
    for key in ("group", "member", "parent", "metadata"):
        row.pop(key)
    for turn in row["turns"]:
        turn.pop("seconds")
        for call in turn["calls"]:
            call.pop("id")
        for observation in turn["observations"]:
            observation.pop("call_id")
    return hashlib.sha256(canonical(row)).hexdigest()
