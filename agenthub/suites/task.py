"""A task as the hub plays it: what the YAML says after defaults, sources and fields are resolved.

Frozen records without pydantic; `suites.schema` reads YAML into them. A task holds its target, so it never leaves the
hub: `Task.public` is what a client may see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agenthub.records import Message, frozen
from agenthub.sandbox import SandboxSpec

__all__ = ["Check", "ImageBuild", "Suite", "Task", "TaskLimits", "ToolUse", "TurnCheck", "Verifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """Limits of one episode; a spent one truncates it."""

    max_turns: int = 8
    max_tokens: int = 8192
    """Prompt and completion tokens of the longest context, as the client reports them; not enforced for text alone."""
    turn_seconds: float = 10.0
    """Seconds for the calls of one turn."""
    episode_seconds: float = 600.0
    setup_seconds: float = 30.0
    verify_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool of the task: the policy's name for it, the sandbox that runs it and the sandbox's own tool."""

    name: str
    uses: str
    """Registry name of the sandbox kind, e.g. `python`."""
    tool: str = ""
    """The sandbox's tool; empty for its first."""
    spec: SandboxSpec = field(default_factory=SandboxSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One named check of the verifier."""

    id: str
    uses: str
    """Registry name of kind `check`."""
    args: Mapping[str, Any] = field(default_factory=frozen)
    weight: float = 1.0
    required: bool = False
    """The outcome is 0 where this check scores below 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """How a finished episode is scored: `outcome` in [0, 1]."""

    checks: tuple[Check, ...]
    combine: str = "weighted"
    """weighted, min, mean, and, or, first."""
    scale: float = 1.0
    """The outcome component is the combined score times this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCheck:
    """A named reward component of single turns, computed in the hub."""

    name: str
    uses: str
    """Registry name of kind `turn_check`."""
    reward: float
    args: Mapping[str, Any] = field(default_factory=frozen)
    first_only: bool = False
    """Paid once an episode, on the first turn that passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task."""

    id: str
    suite: str
    split: str
    messages: tuple[Message, ...]
    protocol: str
    """Registry name of kind `protocol`."""
    tools: tuple[ToolUse, ...]
    verifier: Verifier
    limits: TaskLimits = field(default_factory=TaskLimits)
    on_no_call: str = "end"
    """end, remind or ignore."""
    turn_checks: tuple[TurnCheck, ...] = ()
    target: Any = None
    """The expected answer; hidden from policies and clients."""
    solution: tuple[str, ...] = ()
    """The oracle: the text of each turn that wins. Hidden."""
    require: tuple[str, ...] = ()
    """Isolation layers that the task needs; refused where the machine lacks one."""
    languages: Mapping[str, Mapping[str, Any]] = field(default_factory=frozen)
    """The suite's languages by name, as the language sandbox is told them."""
    deterministic: bool = True
    """The same actions give the same observations and reward."""
    on_lost: str = "end"
    """What an episode does when the program ends its box: `end`, or `restore`: go on from before the turn."""
    max_restores: int = 3
    metadata: Mapping[str, Any] = field(default_factory=frozen)
    """Public facts: kind, difficulty, source."""
    x: Mapping[str, Any] = field(default_factory=frozen)
    """Vendor keys, kept verbatim."""
    origin: Mapping[str, Any] = field(default_factory=frozen)
    """Where an imported task came from, kept verbatim."""
    place: str = ""
    """file:line of the task, for errors."""

    @property
    def key(self) -> str:
        """`suite/id`."""
        return f"{self.suite}/{self.id}"

    def public(self) -> dict[str, Any]:
        """What a client may see: never the target, the solution or the verifier's arguments."""
        return {
            "id": self.id,
            "suite": self.suite,
            "split": self.split,
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "protocol": self.protocol,
            "tools": [tool.name for tool in self.tools],
            "limits": {"max_turns": self.limits.max_turns, "max_tokens": self.limits.max_tokens},
            "on_no_call": self.on_no_call,
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuild:
    """How an image of a suite's own is built; `agenthub images build` does it."""

    image: str
    """Its name: of the suite, and of what the context holds."""
    context: Path
    dockerfile: Path
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named, versioned list of tasks."""

    name: str
    version: str
    description: str
    license: str
    path: str
    tasks: tuple[Task, ...]
    splits: tuple[str, ...]
    languages: Mapping[str, Mapping[str, Any]] = field(default_factory=frozen)
    """As the language sandbox is told them."""
    images: tuple[ImageBuild, ...] = ()
    """Those that its tasks have Dockerfiles for."""
    x: Mapping[str, Any] = field(default_factory=frozen)
    origin: Mapping[str, Any] = field(default_factory=frozen)

    def split(self, name: str) -> tuple[Task, ...]:
        """Tasks of one split, in the file's order."""
        return tuple(task for task in self.tasks if task.split == name)
