"""The YAML of a suite, `agenthub.suite/1`: every key that can be written, and what is refused by name.

Owns the shape of a file. What a file means (defaults, sources, fields) is `suites.load`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from agenthub.config import ConfigModel
from agenthub.suites.schema.boxes import (
    BuildIn,
    FileIn,
    LanguageIn,
    LanguageTimeIn,
    NetworkIn,
    ResourcesIn,
    SandboxIn,
    StateIn,
    ToolIn,
)
from agenthub.suites.schema.task import (
    CheckIn,
    LimitsIn,
    MessageIn,
    PromptIn,
    SolutionIn,
    TargetIn,
    TaskIn,
    TurnCheckIn,
    VerifierIn,
)
from agenthub.suites.schema.values import Count, Name, bytes_of, names

__all__ = [
    "AuthorIn",
    "BuildIn",
    "CheckIn",
    "FileIn",
    "GeneratorSource",
    "Header",
    "JsonlSource",
    "LanguageIn",
    "LanguageTimeIn",
    "LimitsIn",
    "MessageIn",
    "NetworkIn",
    "PromptIn",
    "ResourcesIn",
    "SandboxIn",
    "SolutionIn",
    "SourceIn",
    "SplitIn",
    "StateIn",
    "SuiteFile",
    "TargetIn",
    "TaskIn",
    "ToolIn",
    "TurnCheckIn",
    "VerifierIn",
    "bytes_of",
]


class AuthorIn(ConfigModel):
    """Who made the suite."""

    name: str
    email: str = ""


class SplitIn(ConfigModel):
    """A split of the suite."""

    description: str = ""


class Header(ConfigModel):
    """What the suite is."""

    not_built: ClassVar[frozenset[str]] = names("contamination")

    name: Name
    version: str
    description: str = ""
    license: str = ""
    authors: tuple[AuthorIn, ...] = ()
    homepage: str = ""
    tags: tuple[str, ...] = ()
    splits: dict[Name, SplitIn] = Field(default_factory=dict)
    """Empty: the splits are those that the tasks name."""


class JsonlSource(ConfigModel):
    """Tasks from the rows of a JSONL file (gzip by its name), by a map from task fields to templates."""

    not_built: ClassVar[frozenset[str]] = names("pin weight format")

    kind: Literal["jsonl"]
    path: str
    """Relative to the YAML file, or `${NAME}/...` with an environment variable."""
    fields: dict[str, Any]
    split: Name | None = None
    limit: Count | None = None


class GeneratorSource(ConfigModel):
    """Tasks from a named generator."""

    not_built: ClassVar[frozenset[str]] = names("weight")

    kind: Literal["generator"]
    uses: str
    """Registry name of a generator; `name:variant` where it has variants."""
    config: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    count: Count | None = None
    size: Count | None = None
    """Another name of `count`."""
    split: Name | None = None
    prefix: str = ""
    """Put before the ids."""

    @model_validator(mode="after")
    def _count(self) -> Self:
        if (self.count is None) == (self.size is None):
            raise ValueError("needs exactly one of count and size")
        return self


SourceIn = Annotated[JsonlSource | GeneratorSource, Field(discriminator="kind")]


class SuiteFile(ConfigModel):
    """A whole file."""

    not_built: ClassVar[frozenset[str]] = names("extends")

    schema_: Literal["agenthub.suite/1"] = Field(alias="schema")
    suite: Header
    defaults: TaskIn = TaskIn()
    languages: tuple[LanguageIn, ...] = ()
    tasks: tuple[TaskIn, ...] = ()
    sources: tuple[SourceIn, ...] = ()
    x: dict[str, Any] = Field(default_factory=dict)
    origin: dict[str, Any] = Field(default_factory=dict)

    @field_validator("languages")
    @classmethod
    def _names_once(cls, languages: tuple[LanguageIn, ...]) -> tuple[LanguageIn, ...]:
        names = [language.id for language in languages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two languages are named {name!r}; give one of them another name")
        return languages
