"""YAML 1.2 into pydantic models, with every problem at its `file:line` and the nearest valid name.

    recipe = load_yaml("recipes/grpo.yaml", Recipe, overrides=["sampling.temperature=0.7"])

Owns reading, limits on what is read, the line of every value, and the wording of errors. The models themselves belong
to whoever reads the file; they subclass `ConfigModel`. Plain values only: no tags, no objects, string keys.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agenthub.config.document import Document, Loc, parse_document, read_document
from agenthub.config.problems import below, keys_of, listed, models_in, no_key, shown, to_config_error
from agenthub.errors import ConfigError

__all__ = [
    "ConfigModel",
    "Document",
    "apply_overrides",
    "load_yaml",
    "parse_document",
    "parse_yaml",
    "read_document",
    "validate",
]

M = TypeVar("M", bound=BaseModel)


class ConfigModel(BaseModel):
    """Base of everything that is read from YAML: unknown keys are errors, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    not_built: ClassVar[frozenset[str]] = frozenset()
    """Keys that the format has and this version refuses by name."""


def load_yaml(path: str | os.PathLike[str], model_cls: type[M], *, overrides: Sequence[str] = ()) -> M:
    """Read a YAML file into a model.

    Args:
        overrides: `a.b=3`, each put over the file's values; the right side is YAML.

    Raises:
        ConfigError: the file cannot be read or parsed, or its values do not fit; lists up to MAX_PROBLEMS at once.
    """
    return _model(read_document(path), model_cls, overrides)


def parse_yaml(text: str, path: str, model_cls: type[M], *, overrides: Sequence[str] = ()) -> M:
    """As `load_yaml`, from text; `path` is what errors call it."""
    return _model(parse_document(text, path), model_cls, overrides)


def validate(document: Document, model_cls: type[M]) -> M:
    """The document as a model.

    Raises:
        ConfigError: values do not fit; up to MAX_PROBLEMS of them, in the order of the file.
    """
    if not isinstance(document.data, dict):
        keys = listed(keys_of(model_cls))
        raise ConfigError(document.place(()), f"is {shown(document.data)}; expected a mapping with keys {keys}")
    try:
        return model_cls.model_validate(document.data)
    except ValidationError as error:
        raise to_config_error(document, model_cls, error) from error


def apply_overrides(model_cls: type[BaseModel], data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with `a.b=3` put in; missing mappings on the way are made, an index reaches into a list.

    Raises:
        ConfigError: no `key=value`, a value that is not YAML, or a key that the model does not have.
    """
    return _changed(model_cls, data, overrides)[0]


def _model(document: Document, model_cls: type[M], overrides: Sequence[str]) -> M:
    if overrides and isinstance(document.data, dict):
        data, given = _changed(model_cls, document.data, overrides)
        document = Document(path=document.path, data=data, lines=document.lines, given=given)
    return validate(document, model_cls)


def _changed(
    model_cls: type[BaseModel], data: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[Loc, str]]:
    changed: dict[str, Any] = copy.deepcopy(dict(data))
    given: dict[Loc, str] = {}
    for text in overrides:
        place = f"--set {text}"
        key, equals, value = text.partition("=")
        keys = key.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(place, "expected key=value, with dots between the parts of the key")
        parsed = parse_document(value, place).data if value.strip() else None
        given[_put(changed, model_cls, keys, parsed, place)] = place
    return changed, given


def _put(data: dict[str, Any], model_cls: type[BaseModel], keys: Sequence[str], value: Any, place: str) -> Loc:
    """Put `value` at `keys`, and say where that is."""
    here: Any = data
    annotations: tuple[Any, ...] = (model_cls,)
    loc: list[str | int] = []
    for depth, key in enumerate(keys):
        step = _step(here, models_in(annotations), key, ".".join(keys[:depth]) or "the file", place)
        annotations = below(annotations, step)
        loc.append(step)
        if depth == len(keys) - 1:
            here[step] = value
        elif isinstance(here, dict) and here.get(key) is None:
            here[key] = {}
        here = here[step]
    return tuple(loc)


def _step(here: Any, models: Sequence[type[BaseModel]], key: str, inside: str, place: str) -> str | int:
    if isinstance(here, list):
        if not key.isdigit() or int(key) >= len(here):
            raise ConfigError(place, f"{inside} has {len(here)} entries; expected an index from 0")
        return int(key)
    if not isinstance(here, dict):
        raise ConfigError(place, f"{inside} is {shown(here)}, which has no keys")
    if models and not any(key in keys_of(model) for model in models):
        raise ConfigError(place, no_key(inside, key, models))
    return key
