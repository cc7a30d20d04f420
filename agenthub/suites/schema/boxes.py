"""What a suite says of boxes: tools, limits, images, files, and the languages of programs."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from agenthub.config import ConfigModel
from agenthub.suites.schema.values import Count, Name, Seconds, Size, names

__all__ = [
    "BuildIn",
    "FileIn",
    "LanguageIn",
    "LanguageTimeIn",
    "NetworkIn",
    "ResourcesIn",
    "SandboxIn",
    "StateIn",
    "ToolIn",
]


class ToolIn(ConfigModel):
    """A tool of the task."""

    not_built: ClassVar[frozenset[str]] = names("schema")

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

    not_built: ClassVar[frozenset[str]] = names("swap gpus fsize")

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

    not_built: ClassVar[frozenset[str]] = names("allow block ports")

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

    not_built: ClassVar[frozenset[str]] = names("persist on_timeout background fork")

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

    not_built: ClassVar[frozenset[str]] = names(
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

    not_built: ClassVar[frozenset[str]] = names("service src url sha256 mode phase")

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
