"""A language as a suite declares it: what is installed for it, and how a program in it is compiled and run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["Language"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One language. `{source}` in a command is the source file's name."""

    id: str
    install: tuple[str, ...] = ()
    """Debian packages."""
    image: str = ""
    """A container image that has the language, and Python 3; nothing is installed then."""
    source: str
    """Name of the source file, in the working folder."""
    compile: str | None = None
    run: str
    compile_seconds: float = 10.0
    run_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.source or "/" in self.source or self.source in (".", "..") or "\0" in self.source:
            raise UserError(f"language {self.id!r}: source is {self.source!r}; expected the name of a file")
        if bool(self.install) == bool(self.image):
            raise UserError(f"language {self.id!r}: give install or image, one of them")
        self.command(self.run)
        self.command(self.compile or self.run)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Language:
        """The language of a sandbox's params, `{"language": {...}}`.

        Raises:
            UserError, UnknownName: they are no language.
        """
        given = params.get("language")
        if not isinstance(given, Mapping) or len(params) != 1:
            raise UserError("the language sandbox has one setting, `language`: one of the suite's languages")
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise UnknownName("key of a language", name, known)
        for name in ("id", "source", "run"):
            if name not in given:
                raise UserError(f"a language has no {name!r}")
        return cls(**{**given, "install": tuple(given.get("install", ()))})

    def command(self, line: str) -> list[str]:
        """A command's words. Raises UserError where it has none."""
        try:
            words = [word.replace("{source}", self.source) for word in shlex.split(line)]
        except ValueError as error:
            raise UserError(f"language {self.id!r}: command {line!r}: {error}") from None
        if not words:
            raise UserError(f"language {self.id!r}: a command is empty")
        return words
