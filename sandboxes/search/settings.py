"""The settings of the search tools, `config` in a suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.records import frozen
from agenthub.registry import registry

__all__ = ["MODES", "Settings", "settings_of"]

MODES = ("replay", "record", "live")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a task's search tools reach."""

    corpus: str = ""
    """Name or path of an index, or a generated corpus."""
    corpus_config: Mapping[str, Any] = field(default_factory=frozen)
    """Settings of a generated corpus."""
    engine: str = ""
    """Live engine in place of a corpus."""
    mode: str = "replay"
    """Of the engine: `replay` what was recorded, `record` what is not yet, `live`."""
    store: str = ""
    """Name of the store of recordings; `default` where empty."""
    day: str = ""
    """In `replay`, the day (YYYY-MM-DD) whose recordings are played; the latest where empty."""
    fetch: bool = True
    """With an engine: `open` fetches pages. Else only what a search found can be opened."""
    allow: tuple[str, ...] = ()
    """Hosts that may be fetched, with those below them; all where empty."""
    k: int = 3
    """Passages where a call does not say."""
    passage_chars: int = 2000
    """Characters of a passage that are shown."""
    page_chars: int = 4000
    """Characters of one part of an opened document."""


def settings_of(params: Mapping[str, Any]) -> Settings:
    """The settings of a suite.

    Raises:
        UnknownName: a key, an engine or a mode is not known.
        UserError: a value does not fit.
    """
    known = {it.name: it for it in dataclasses.fields(Settings)}
    for name, value in params.items():
        if name not in known:
            raise UnknownName("setting of the search sandbox", name, known)
        _check(name, value)
    values = {**params, "allow": tuple(params.get("allow", ())), "corpus_config": frozen(params.get("corpus_config"))}
    made = Settings(**values)
    if bool(made.corpus) == bool(made.engine):
        raise UserError("the search sandbox needs a corpus or an engine, one of them: config: {corpus: NAME}")
    if made.engine and made.engine not in registry("engine").names():
        raise UnknownName("search engine", made.engine, registry("engine").names())
    if made.mode not in MODES:
        raise UnknownName("mode of the search sandbox", made.mode, MODES)
    return made


def _check(name: str, value: object) -> None:
    if name in ("k", "passage_chars", "page_chars"):
        fits, wanted = type(value) is int and 1 <= value <= (100 if name == "k" else 100_000), "a number from 1"
    elif name == "fetch":
        fits, wanted = isinstance(value, bool), "true or false"
    elif name == "allow":
        fits = isinstance(value, list | tuple) and all(isinstance(it, str) for it in value)
        wanted = "a list of host names"
    elif name == "corpus_config":
        fits, wanted = isinstance(value, Mapping), "a mapping"
    else:
        fits, wanted = isinstance(value, str), "a string"
    if not fits:
        raise UserError(f"setting {name!r} of the search sandbox is {value!r}; expected {wanted}")
