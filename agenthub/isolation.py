"""Isolation: start a process with mounts, limits and no network, and be able to end all of it.

The protocol that `sandboxes.isolation.*` implement. A tool (Python, Lean, a browser) is built on a `Box` and knows
nothing about namespaces, containers or engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "Box",
    "BoxEnd",
    "BoxSpec",
    "BoxUsage",
    "Copyable",
    "Isolation",
    "Keepable",
    "Layer",
    "LayerState",
    "Limits",
    "Mount",
    "Resting",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one box may use. Every value is a hard limit."""

    memory_mb: int = 512
    """MiB of memory of the whole box, tmpfs included."""
    pids: int = 64
    """Processes and threads together."""
    cpus: float = 1.0
    """CPU seconds a second."""
    disk_mb: int = 64
    """MiB of the workspace and of /tmp, each."""
    files: int = 4096
    """Inodes of the workspace."""
    open_files: int = 256
    """File descriptors of one process."""
    output_bytes: int = 1 << 20
    """Bytes of output read in one turn; what comes after is counted and dropped."""

    def __post_init__(self) -> None:
        for name in ("memory_mb", "pids", "disk_mb", "files", "open_files", "output_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"limits.{name} must be above 0")
        if not self.cpus > 0:
            raise ValueError("limits.cpus must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host path shown in the box."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSpec:
    """What to start."""

    image: str
    """Name of a warm image (a mold: an interpreter that has imported its libraries), or of a container image."""
    argv: tuple[str, ...] = ()
    """Command to run in place of the image's own resident program; empty for the resident program."""
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    network: str = "none"
    """Only `none` is built: no interface but a loopback that is down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxUsage:
    """What a box has used so far."""

    cpu_s: float
    """CPU seconds since the box started, from its cgroup; 0.0 where none can be read."""
    peak_mb: int
    """Highest memory, MiB; 0 where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxEnd:
    """How a box ended."""

    code: int | None
    """Exit status of the resident program; negative is the signal; None where it is not known."""
    oom: bool
    """The memory limit killed it."""
    reason: str
    """One line for a person."""
    host_fault: bool = False
    """True only on evidence from our side (supervisor gone, engine gone); never by anything the program did."""


class Box(Protocol):
    """One isolated process tree with a private socket to its resident program."""

    id: str

    def fileno(self) -> int:
        """Descriptor of the stream socket to the resident program; non-blocking, owned by the box."""

    def streams(self) -> tuple[int, int]:
        """Descriptors of what the box's processes write to standard output and error; non-blocking, owned by the box.

        They end only with the box; what was written before a reply on the socket can be read when the reply can.
        """

    async def read_file(self, path: str, *, max_bytes: int) -> bytes:
        """A regular file under the workspace, read without asking the box and without following links.

        Raises:
            UserError: the path leaves the workspace, is no regular file, is missing or too large.
        """

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file of the box's user under the workspace, with its folders. Raises as `read_file` does."""

    async def list_files(self, *, most: int) -> list[str]:
        """Relative paths of the regular files in the workspace, sorted; at most `most`."""

    def usage(self) -> BoxUsage:
        """Usage so far; zeros where it cannot be read."""

    async def signal_soft(self) -> None:
        """Send SIGINT to the resident program; nothing happens where the box has ended."""

    def discard(self) -> None:
        """Begin to kill every process of the box and free all it held, without waiting. Safe to call again."""

    async def kill(self) -> BoxEnd:
        """`discard`, wait until nothing is left, and say how it ended. Safe to call again."""

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call `listener` once the resident program has ended or the box is given up, at once where it has been.

        It is called while the descriptors of the box are still open, so that whoever listens on them can stop.
        """

    async def ended(self) -> BoxEnd:
        """Wait for the box to end by itself or by `kill`."""


@runtime_checkable
class Resting(Protocol):
    """A `Box` whose processes can be stopped between two turns."""

    def rest(self) -> str:
        """A turn has ended: stop what it left running, or end it. Returns one line of what was ended, or nothing."""

    def wake(self) -> None:
        """A turn begins: what `rest` stopped goes on. Does nothing where the box runs."""


@runtime_checkable
class Copyable(Protocol):
    """A `Box` of which live copies can be made while its resident program waits for the next order."""

    async def copies(self, count: int, order: bytes) -> Sequence[Box]:
        """`count` boxes with the memory, the files and the limits of this one.

        Args:
            order: what each copy finds on its own socket as it wakes up waiting for it.

        Raises:
            ForkRefused: a copy would not be sound; nothing has changed.
            HostFault: our side failed; no copy is left behind.
        """


@runtime_checkable
class Keepable(Protocol):
    """A `Box` that can outlive a killed hub, where its isolation was told where the next one looks for it."""

    def keep(self, facts: Mapping[str, Any]) -> None:
        """Have the box kept from now on. What is said here, as JSON values, is found with it; `label` finds it.

        Said again, it replaces what was said before.
        """


class LayerState(StrEnum):
    """What `doctor` says of a layer."""

    OK = "ok"
    MISSING = "missing"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of isolation on this machine."""

    name: str
    state: LayerState
    detail: str
    """What was found, or what is missing and what that costs."""


class Isolation(Protocol):
    """A way of starting boxes."""

    async def open(self) -> None:
        """Start what is shared by all boxes (a supervisor, an engine connection).

        Raises:
            UserError: this machine cannot have this isolation; says which layer is missing.
            HostFault: it could, but the start failed.
        """

    async def spawn(self, spec: BoxSpec) -> Box:
        """Start a box.

        Raises:
            UserError: the image is not known, or the machine cannot give the limits.
            HostFault: the start failed on our side.
        """

    def layers(self) -> tuple[Layer, ...]:
        """What holds a box in, layer by layer, without starting anything."""

    async def close(self) -> None:
        """Kill every box and end what `open` started."""
