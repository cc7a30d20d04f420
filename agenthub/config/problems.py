"""What a person reads when a file does not fit its model: the place, what stands there, and what would do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agenthub.config.document import Document, Loc
from agenthub.errors import ConfigError, nearest

__all__ = ["below", "keys_of", "listed", "models_in", "no_key", "shown", "to_config_error"]

MAX_PROBLEMS = 20
"""Problems listed in one error."""


def to_config_error(document: Document, model_cls: type[BaseModel], error: ValidationError) -> ConfigError:
    """All problems of a file in its order, up to MAX_PROBLEMS; the first gives the error's place."""
    problems = [_problem(document, model_cls, dict(one)) for one in error.errors(include_url=False)]
    problems.sort(key=lambda problem: problem[0])
    _, place, message = problems[0]
    rest = "".join(f"\n{place}: {message}" for _, place, message in problems[1:MAX_PROBLEMS])
    more = f"\n... and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
    return ConfigError(place, f"{message}{rest}{more}")


def _problem(document: Document, model_cls: type[BaseModel], error: dict[str, Any]) -> tuple[int, str, str]:
    """(line for sorting, place, message) of one of pydantic's errors."""
    kind, loc = error["type"], _real_loc(document.data, error["loc"])
    name = _dotted(loc)
    if kind == "missing":
        key = str(error["loc"][-1])
        message = f"{_dotted(loc)}.{key} is missing" if loc else f"{key} is missing"
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        inside = _dotted(loc[:-1]) or document.root
        message = no_key(inside, str(loc[-1]), _models_at(model_cls, loc[:-1]))
    elif kind in ("literal_error", "enum", "union_tag_invalid"):
        message = _not_one_of(name, error)
    elif kind == "union_tag_not_found":
        message = f"{name}.{_ctx(error, 'discriminator')} is missing"
    elif kind in ("value_error", "assertion_error"):
        message = f"{name}: {error['ctx']['error']}" if name else str(error["ctx"]["error"])
    elif kind == "model_type":
        keys = sorted({key for model in _models_at(model_cls, loc) for key in keys_of(model)})
        message = f"{name or document.root} is {shown(error['input'])}; expected a mapping with keys {listed(keys)}"
    else:
        expected = re.sub(r"^Input should be ", "expected ", error["msg"])
        message = f"{name} is {shown(error['input'])}; {expected}"
    place = document.place(loc)
    line = place.rpartition(":")[2]
    return (int(line) if line.isdigit() else 0), place, message


def _not_one_of(name: str, error: dict[str, Any]) -> str:
    if error["type"] == "union_tag_invalid":
        name = f"{name}.{_ctx(error, 'discriminator')}"
        given, expected = _ctx(error, "tag"), str(error["ctx"]["expected_tags"])
    else:
        given, expected = error["input"], str(error["ctx"]["expected"])
    options = [option.strip(" '\"") for option in re.split(r", | or ", expected)]
    near = nearest(given, options) if isinstance(given, str) else ""
    tail = near if near.startswith("; did") else ""
    return f"{name} is {shown(given)}; expected one of {', '.join(options)}{tail}"


def _ctx(error: dict[str, Any], key: str) -> str:
    return str(error["ctx"][key]).strip("'\"")


def no_key(inside: str, key: str, models: Sequence[type[BaseModel]]) -> str:
    if any(key in getattr(model, "not_built", ()) for model in models):
        return f"{inside}: {key} is not built yet"
    known = sorted({name for model in models for name in keys_of(model)})
    near = nearest(key, known)
    tail = f"{near} (keys: {listed(known)})" if near.startswith("; did") else f"; expected one of {listed(known)}"
    return f"{inside} has no key {key!r}{tail if known else ''}"


def _real_loc(data: Any, loc: Sequence[str | int]) -> Loc:
    """pydantic's location without the parts that are not in the data (union members, missing keys)."""
    real: list[str | int] = []
    for part in loc:
        is_key = isinstance(data, dict) and part in data
        is_index = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if is_key or is_index:
            data = data[part]
            real.append(part)
    return tuple(real)


def keys_of(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _models_at(model_cls: type[BaseModel], loc: Loc) -> tuple[type[BaseModel], ...]:
    annotations: tuple[Any, ...] = (model_cls,)
    for part in loc:
        annotations = below(annotations, part)
    return models_in(annotations)


def below(annotations: Sequence[Any], part: str | int) -> tuple[Any, ...]:
    """Annotations of what stands under a key or an index of a value that has one of `annotations`."""
    found: list[Any] = []
    for annotation in annotations:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            infos = annotation.model_fields.items()
            found += [info.annotation for name, info in infos if (info.alias or name) == part]
        elif origin in (list, tuple, Sequence) and isinstance(part, int):
            found += arguments[:1]
        elif origin in (dict, Mapping):
            found += arguments[1:]
        elif origin is Annotated:
            found += below(arguments[:1], part)
        else:
            found += below(arguments, part)
    return tuple(found)


def models_in(annotations: Sequence[Any]) -> tuple[type[BaseModel], ...]:
    """The models that a value may be: unions are opened, lists and mappings are not."""
    found: list[type[BaseModel]] = []
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        elif get_origin(annotation) in (Union, UnionType, Annotated):
            found += models_in(get_args(annotation))
    return tuple(found)


def _dotted(loc: Loc) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return "null" if value is None else text if len(text) <= 60 else f"{text[:57]}..."


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
