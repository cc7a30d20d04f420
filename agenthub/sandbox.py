"""Sandbox: a tool's state for one episode. The protocol that `sandboxes.*` implement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agenthub.isolation import Limits
from agenthub.records import Call, Observation, frozen

__all__ = ["Capabilities", "Sandbox", "SandboxFactory", "SandboxSpec", "ToolSpec"]


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
    isolation: str = "jail"
    limits: Limits = field(default_factory=Limits)
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
    """native, stateless, replay or no."""


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

    async def close(self) -> None:
        """Free everything. Never raises for what the program did; safe to call again."""


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

    async def close(self) -> None:
        """Free everything that `open` and `start` made."""
