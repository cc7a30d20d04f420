"""Sandbox: a tool's state for one episode. The protocol that `sandboxes.*` implement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from agenthub.isolation import Limits
from agenthub.records import Call, ImageRef, Observation, frozen

__all__ = [
    "Capabilities",
    "CodeBox",
    "Equipped",
    "FileChange",
    "Immediate",
    "Keepable",
    "Keeping",
    "Pictured",
    "Plain",
    "ProgramRun",
    "Programs",
    "Sandbox",
    "SandboxFactory",
    "SandboxSpec",
    "ToolSpec",
    "Tracked",
    "World",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as a policy is told of it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments (an object)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What a sandbox needs to start. Never the task: that one holds the target."""

    image: str = "python"
    isolation: str = ""
    """Registry name; empty is the hub's own."""
    limits: Limits = field(default_factory=Limits)
    request_mb: int = 8
    """MiB that are set aside for the box when its episode is admitted; it may use more, up to its limit."""
    files: Mapping[str, bytes] = field(default_factory=frozen)
    """Files put into the workspace before the first turn, by relative path."""
    params: Mapping[str, Any] = field(default_factory=frozen)
    """The tool's own settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a sandbox can do on this machine."""

    persistent: bool
    """State lasts from turn to turn."""
    deterministic: bool
    """The same calls show the same observations."""
    fork: str
    """How an episode's copies get their state. `native`: `Sandbox.fork`; `stateless`: there is none, a fresh sandbox is
    a copy; `replay`: the episode's calls are made again in a fresh one; `no`: not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One thing that an episode changed in its workspace."""

    path: str
    """Relative to the workspace."""
    removed: bool = False
    data: bytes | None = None
    """New content of a regular file; None for a folder, a link or what was removed."""
    link: str | None = None
    """Where a symbolic link points."""
    mode: int = 0o644

    @property
    def folder(self) -> bool:
        """True where it is now a folder."""
        return not self.removed and self.data is None and self.link is None


@runtime_checkable
class Keepable(Protocol):
    """What a sandbox that can outlive a killed hub has besides `Sandbox`."""

    def keep(self, label: str) -> None:
        """Let the next hub find the sandbox under this label, as `Keeping.kept` says. Between two calls."""


@runtime_checkable
class Keeping(Protocol):
    """What a factory of `Keepable` sandboxes has besides `SandboxFactory`."""

    def keep_at(self, socket: Path, grace_s: float) -> None:
        """Before `open`: sandboxes that are kept wait `grace_s` seconds for a hub that opens the same `socket`."""

    def kept(self, label: str, spec: SandboxSpec) -> Sandbox | None:
        """The sandbox that a killed hub kept under a label, as it was left; None where there is none (any more)."""

    def forsake(self, wanted: Callable[[str], bool]) -> None:
        """End what a killed hub kept under the labels that are not wanted."""


@runtime_checkable
class Equipped(Protocol):
    """What the class of a factory whose sandboxes need programs of the machine has besides `SandboxFactory`."""

    @staticmethod
    def lacking() -> str:
        """What is missing here and how to get it; empty where nothing is. Looks, and starts nothing that stays."""


@runtime_checkable
class Tracked(Protocol):
    """What a sandbox that can tell what changed in its workspace has besides `Sandbox`."""

    async def changes(self) -> tuple[FileChange, ...]:
        """What differs from the start, removed things first. Ends every program that still runs.

        Raises:
            BoxLost, HostFault: as in `Sandbox.call`.
            UserError: the workspace is too large to be read.
        """


@runtime_checkable
class Immediate(Protocol):
    """What a sandbox that never makes anybody wait has besides `Sandbox`."""

    def call_now(self, call: Call) -> Observation:
        """As `Sandbox.call`, at once and in any case."""


@runtime_checkable
class World(Protocol):
    """What a sandbox that holds a world with a task in it has besides `Sandbox`: a page, a desktop, a game."""

    @property
    def opening(self) -> str:
        """What the policy is shown of it before its first turn, below the task's last message; empty for nothing."""

    @property
    def over(self) -> str:
        """Why the world has ended the episode; empty while it goes on."""

    async def facts(self) -> Mapping[str, Any]:
        """What the task's checks may know of it, as JSON values; nothing that the policy can write by itself.

        Raises:
            BoxLost, HostFault: as in `Sandbox.call`.
        """


@runtime_checkable
class Pictured(Protocol):
    """What a sandbox that shows images, or other parts that are kept by content, has besides `Sandbox`.

    An observation holds references (`images.image_ref` makes them); what they refer to is taken by the episode, which
    keeps it beside its log before anybody is shown the observation.
    """

    @property
    def opening_images(self) -> tuple[ImageRef, ...]:
        """Images that the policy is shown before its first turn."""

    def take_blobs(self) -> Mapping[str, bytes]:
        """Contents by SHA-256 of what was shown since the last time, the opening's images too. Each is given once."""


class Sandbox(Protocol):
    """One tool's state for one episode; used by one caller at a time."""

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """Run one tool call and return what it showed.

        A program that fails, or is interrupted because its time is up, is an observation and not an exception.

        Raises:
            BoxLost: the box ended by its own doing; the episode ends with Stop.SANDBOX_LOST, outcome model_fault.
            HostFault: our side failed; outcome infra_fault.
        """

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """A regular file under the workspace.

        Raises:
            UserError: the path leaves the workspace, is no regular file, is missing or too large.
            BoxLost, HostFault: as in `call`.
        """

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file under the workspace, with its folders. Raises as `read_file` does."""

    async def list_files(self) -> list[str]:
        """Relative paths of the regular files in the workspace, sorted; at most 10,000."""

    async def fork(self, n: int) -> Sequence[Sandbox]:
        """`n` copies of this sandbox as it is between two calls: its state, its files. Each goes its own way from here.

        Called only where `Capabilities.fork` says `native`.

        Raises:
            ForkRefused: a copy would not be sound (the program has threads or children, shares memory), or this sandbox
                cannot be copied. Nothing has changed.
            BoxLost, HostFault: as in `call`. No copy is left behind.
        """

    async def close(self) -> None:
        """Free everything. Never raises for what the program did; safe to call again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """What came out of code in a grading box: a plain typed value, or the error in its place."""

    value: Any = None
    """None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset or dict of the same, by exact type."""
    error: str | None = None
    """`ExceptionName: message` where the code raised; None where it returned."""
    lost: bool = False
    """The box ended, or its time was up: the error says how."""


class CodeBox(Protocol):
    """A fresh interpreter for grading. Candidate code and test code never share one: they meet through the hub.

    Nothing here raises for what the code did; that is a `Plain` with an error. HostFault is raised as everywhere.
    """

    async def load(self, source: str, *, timeout_s: float) -> Plain:
        """Execute a module's source; its globals stay."""

    async def invoke(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float) -> Plain:
        """Call a global by name with plain values."""

    async def drive(
        self,
        name: str,
        *,
        candidate: Callable[[Sequence[Any], Mapping[str, Any]], Awaitable[Plain]],
        timeout_s: float,
    ) -> Plain:
        """Call the global test function `name(proxy)`. Each call of the proxy in the box is sent to `candidate` here,
        and its value is returned (or its error raised) in the box."""

    async def run(self, source: str, *, stdin: bytes, timeout_s: float) -> tuple[Plain, bytes]:
        """Run a script as `__main__` on `stdin`: how it ended (value is its exit status) and its standard output."""

    async def close(self) -> None:
        """Free the box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """One stage of a program: how it ended and what it wrote."""

    code: int | None
    """Exit status, negative for a signal; None where its time was up."""
    out: bytes
    err: bytes
    seconds: float
    """Wall seconds, as the hub sees them."""


@runtime_checkable
class Programs(Protocol):
    """What a grading box that tells everything of a whole program has besides `CodeBox`."""

    async def program(self, source: str, *, stdin: bytes, compile_s: float, run_s: float) -> Mapping[str, ProgramRun]:
        """Compile and run a program: its stages `compile` (where the language has one) and `run` (where it compiled).

        Raises:
            BoxLost, HostFault: as in `Sandbox.call`.
        """

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """A file beside the program. Raises as `Sandbox.read_file` does."""

    async def write_file(self, path: str, data: bytes) -> None:
        """Put a file beside the program. Raises as `Sandbox.read_file` does."""

    async def close(self) -> None:
        """Free the box."""


class SandboxFactory(Protocol):
    """Makes the sandboxes of one kind and owns what they share (isolation, warm pool)."""

    tools: tuple[ToolSpec, ...]

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do on this machine."""

    async def open(self) -> None:
        """Start what is shared. Raises as `Isolation.open` does."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox.

        Raises:
            UserError: the image or limits cannot be had here.
            HostFault: the start failed on our side.
        """

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        """A fresh box for grading code, with nothing of the episode in it. Raises as `start` does.

        Raises:
            UserError: this sandbox does not run code that can be graded so.
        """

    async def close(self) -> None:
        """Free everything that `open` and `start` made."""
