"""The YAML of a suite, `agenthub.suite/1`: every key that can be written, and what is refused by name.

Owns the shape of a file. What a file means (defaults, sources, fields) is `suites.load`'s.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from agenthub.config import ConfigModel

__all__ = [
    "BuildIn",
    "CheckIn",
    "FileIn",
    "GeneratorSource",
    "Header",
    "JsonlSource",
    "LanguageIn",
    "LimitsIn",
    "PromptIn",
    "ResourcesIn",
    "SandboxIn",
    "SourceIn",
    "SuiteFile",
    "TargetIn",
    "TaskIn",
    "ToolIn",
    "TurnCheckIn",
    "VerifierIn",
    "bytes_of",
]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def bytes_of(size: str) -> int:
    """Bytes of `512M`, `4G`, `64K`.

    Raises:
        ValueError: it is not written so.
    """
    match = re.fullmatch(r"([1-9]\d{0,8})([KMG])", size)
    if match is None:
        raise ValueError(f"a size is {size!r}; expected a number with K, M or G, as in 512M")
    return int(match[1]) * _UNITS[match[2]]


def _size(size: str) -> str:
    bytes_of(size)
    return size


Size = Annotated[str, AfterValidator(_size)]


class AuthorIn(ConfigModel):
    """Who made the suite."""

    name: str
    email: str = ""


class SplitIn(ConfigModel):
    """A split of the suite."""

    description: str = ""


class Header(ConfigModel):
    """What the suite is."""

    not_built: ClassVar[frozenset[str]] = _names("contamination")

    name: Name
    version: str
    description: str = ""
    license: str = ""
    authors: tuple[AuthorIn, ...] = ()
    homepage: str = ""
    tags: tuple[str, ...] = ()
    splits: dict[Name, SplitIn] = Field(default_factory=dict)
    """Empty: the splits are those that the tasks name."""


class MessageIn(ConfigModel):
    """A chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class PromptIn(ConfigModel):
    """`user`, or `messages`; before them `system`, or what the protocol says about its syntax where it is absent."""

    not_built: ClassVar[frozenset[str]] = _names("instruction_file choices template")

    system: str | None = None
    """An empty string is no system message."""
    user: str | None = None
    messages: tuple[MessageIn, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.user is not None and self.messages:
            raise ValueError("has both user and messages; give one of them")
        if self.system is not None and any(message.role == "system" for message in self.messages):
            raise ValueError("has system and a message with role system; give one of them")
        return self


class TargetIn(ConfigModel):
    """What is expected; never leaves the hub."""

    answer: Any = None
    answers: tuple[Any, ...] = ()
    """Any one of them will do."""
    hidden: Literal[True] = True

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.answer is not None and self.answers:
            raise ValueError("has both answer and answers; give one of them")
        return self


class LimitsIn(ConfigModel):
    """Limits of an episode; each absent one has the default of `suites.task.TaskLimits`."""

    not_built: ClassVar[frozenset[str]] = _names("tool_calls budget")

    max_turns: Count | None = None
    max_tokens: Count | None = None
    turn_seconds: Seconds | None = None
    episode_seconds: Seconds | None = None
    setup_seconds: Seconds | None = None
    verify_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        turn, episode = self.turn_seconds, self.episode_seconds
        if turn is not None and episode is not None and turn > episode:
            raise ValueError(f"turn_seconds {turn:g} is more than episode_seconds {episode:g}")
        tokens, turns = self.max_tokens, self.max_turns
        if tokens is not None and turns is not None and turns > tokens:
            raise ValueError(f"max_turns {turns} is more than max_tokens {tokens}: a turn is at least one token")
        return self


class ToolIn(ConfigModel):
    """A tool of the task."""

    not_built: ClassVar[frozenset[str]] = _names("schema")

    uses: str
    """Registry name of a sandbox kind."""
    name: Name | None = None
    """The policy's name for it; the sandbox kind's where absent."""
    tool: str = ""
    """The sandbox's tool; its first where absent."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The sandbox's own settings."""


class ResourcesIn(ConfigModel):
    """Hard limits of one box; each absent one has the default of `isolation.Limits`."""

    not_built: ClassVar[frozenset[str]] = _names("swap gpus fsize")

    cpus: Annotated[float, Field(gt=0, le=1024)] | None = None
    memory: Size | None = None
    request: Size | None = None
    """Memory set aside for the box when its episode is admitted; it may use more, up to `memory`."""
    disk: Size | None = None
    output: Size | None = None
    """Output of one turn."""
    pids: Count | None = None
    inodes: Count | None = None
    nofile: Count | None = None


class NetworkIn(ConfigModel):
    """Only no network is built."""

    not_built: ClassVar[frozenset[str]] = _names("allow block ports")

    mode: str = "none"

    @field_validator("mode")
    @classmethod
    def _none(cls, mode: str) -> str:
        if mode in ("allowlist", "public", "cache"):
            raise ValueError(f"{mode!r} is not built yet; expected none")
        if mode != "none":
            raise ValueError(f"is {mode!r}; expected none")
        return mode


class StateIn(ConfigModel):
    """What becomes of a box's state."""

    not_built: ClassVar[frozenset[str]] = _names("persist on_timeout background fork")

    on_lost: Literal["end", "restore"] = "end"
    """When the program ends its box: the episode ends, or goes on with the state before the turn."""
    restores: Count = 3
    """At most so many times an episode."""


class BuildIn(ConfigModel):
    """An image of the task's own, from a Dockerfile; paths are relative to the suite's file."""

    dockerfile: str = "Dockerfile"
    """Relative to the context."""
    context: str = "."
    timeout: Seconds = 1800.0


class SandboxIn(ConfigModel):
    """How the task's boxes are started."""

    not_built: ClassVar[frozenset[str]] = _names(
        "compose snapshot workdir user env secrets services healthcheck mcp_servers checkpoint"
    )

    isolation: str | None = None
    require: tuple[str, ...] = ()
    """Layers of isolation without which the task is refused."""
    image: str | None = None
    build: BuildIn | None = None
    """In place of `image`; `agenthub images build SUITE` builds it."""
    resources: ResourcesIn = ResourcesIn()
    network: NetworkIn = NetworkIn()
    state: StateIn = StateIn()

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if self.image is not None and self.build is not None:
            raise ValueError("has both image and build; give one of them")
        if self.build is not None and self.isolation == "jail":
            raise ValueError("build makes an image for docker and gvisor; isolation is 'jail'")
        return self


class FileIn(ConfigModel):
    """A file put into the workspace before the first turn: `content`, or `b64`."""

    not_built: ClassVar[frozenset[str]] = _names("service src url sha256 mode phase")

    path: str
    content: str | None = None
    b64: str | None = None

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if (self.content is None) == (self.b64 is None):
            raise ValueError("needs exactly one of content and b64")
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in self.path:
            raise ValueError(f"path is {self.path!r}; expected a relative path inside the workspace")
        return self


class CheckIn(ConfigModel):
    """One check of the verifier."""

    not_built: ClassVar[frozenset[str]] = _names("getter expected options feedback")

    uses: str
    id: Name | None = None
    """`uses` where absent."""
    args: dict[str, Any] = Field(default_factory=dict)
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    required: bool = False


class VerifierIn(ConfigModel):
    """How a finished episode is scored."""

    not_built: ClassVar[frozenset[str]] = _names(
        "mode image env resources network user timeout pre collect artifacts infeasible range success_threshold metrics"
    )

    checks: tuple[CheckIn, ...] = ()
    combine: Literal["weighted", "min", "mean", "and", "or", "first"] = "weighted"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if self.checks and self.combine == "weighted" and not any(check.weight for check in self.checks):
            raise ValueError("every check has weight 0")
        return self


class TurnCheckIn(ConfigModel):
    """A reward component of single turns."""

    uses: str
    reward: Annotated[float, Field(allow_inf_nan=False)]
    name: Name | None = None
    """`uses` where absent; `outcome` is the verifier's."""
    args: dict[str, Any] = Field(default_factory=dict)
    first_only: bool = False


class SolutionIn(ConfigModel):
    """The oracle: the text of each turn that wins."""

    not_built: ClassVar[frozenset[str]] = _names("path env")

    kind: Literal["turns"] = "turns"
    turns: tuple[str, ...] = ()


class TaskIn(ConfigModel):
    """A task, or the defaults of all tasks: the same keys."""

    not_built: ClassVar[frozenset[str]] = _names(
        "version name description tags difficulty category env seed steps setup teardown observation action lean"
    )

    id: Name | None = None
    split: Name | None = None
    prompt: PromptIn = PromptIn()
    protocol: str | None = None
    tools: tuple[ToolIn, ...] = ()
    target: TargetIn = TargetIn()
    limits: LimitsIn = LimitsIn()
    on_no_call: Literal["end", "remind", "ignore"] = "end"
    turn_checks: tuple[TurnCheckIn, ...] = ()
    verifier: VerifierIn = VerifierIn()
    solution: SolutionIn = SolutionIn()
    sandbox: SandboxIn = SandboxIn()
    files: tuple[FileIn, ...] = ()
    deterministic: bool = True
    metadata: dict[str, Any] = Field(default_factory=dict)
    x: dict[str, Any] = Field(default_factory=dict)
    origin: dict[str, Any] = Field(default_factory=dict)


class JsonlSource(ConfigModel):
    """Tasks from the rows of a JSONL file (gzip by its name), by a map from task fields to templates."""

    not_built: ClassVar[frozenset[str]] = _names("pin weight format")

    kind: Literal["jsonl"]
    path: str
    """Relative to the YAML file, or `${NAME}/...` with an environment variable."""
    fields: dict[str, Any]
    split: Name | None = None
    limit: Count | None = None


class GeneratorSource(ConfigModel):
    """Tasks from a named generator."""

    not_built: ClassVar[frozenset[str]] = _names("weight")

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


class LanguageTimeIn(ConfigModel):
    """Seconds of one program."""

    compile: Seconds = 10.0
    run: Seconds = 10.0


class LanguageIn(ConfigModel):
    """A language: what is installed for it, and how a program is compiled and run. `{source}` is the source file."""

    id: Name
    install: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")], ...] = ()
    """Debian packages."""
    image: str | None = None
    """In place of `install`: a container image that has the language, and Python 3."""
    source: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    compile: Annotated[str, StringConstraints(min_length=1)] | None = None
    run: Annotated[str, StringConstraints(min_length=1)]
    timeout: LanguageTimeIn = LanguageTimeIn()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.install) == bool(self.image):
            raise ValueError("give install or image, one of them")
        return self

    def plain(self) -> dict[str, Any]:
        """What the language sandbox is told, as its `Language` has it."""
        return {
            "id": self.id,
            "install": self.install,
            "image": self.image or "",
            "source": self.source,
            "compile": self.compile,
            "run": self.run,
            "compile_seconds": self.timeout.compile,
            "run_seconds": self.timeout.run,
        }


class SuiteFile(ConfigModel):
    """A whole file."""

    not_built: ClassVar[frozenset[str]] = _names("extends")

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
