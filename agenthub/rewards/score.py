"""What a verifier check is given and what it gives back.

A check is `async def check(context: Context, args: Mapping[str, Any]) -> Score`, a turn check is
`def check(task: Task, turn: Turn, args: Mapping[str, Any]) -> bool`; both are found by name in the registry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agenthub.errors import UserError
from agenthub.records import Turn
from agenthub.sandbox import CodeBox, FileChange, SandboxSpec
from agenthub.suites.task import Task

__all__ = ["Context", "Score", "Verdict", "Workspace"]


async def _worldless(uses: str) -> Mapping[str, Any]:
    raise UserError(f"there is no {uses!r} sandbox with a world in it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """What a check may ask of the sandboxes of the finished episode, and start beside them."""

    changes: Callable[[str], Awaitable[tuple[FileChange, ...]]]
    """What the episode changed in its sandbox of that kind. Raises BoxLost, HostFault, UserError."""
    box: Callable[[str, SandboxSpec], Awaitable[CodeBox]]
    """A fresh grading box of that kind with this spec. Raises HostFault, UserError."""
    facts: Callable[[str], Awaitable[Mapping[str, Any]]] = _worldless
    """What the episode's sandbox of that kind tells of its world. Raises BoxLost, HostFault, UserError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A finished episode as a check sees it: facts only, and the means to start fresh boxes."""

    task: Task
    turns: tuple[Turn, ...]
    answer: str | None
    """The final answer as text; None where the episode ended without one."""
    code_box: Callable[[str], Awaitable[CodeBox]]
    """A fresh grading box of the sandbox kind with that registry name. Raises HostFault, UserError."""
    workspace: Workspace | None = None
    """None where an episode is scored without its sandboxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One check's result."""

    value: float
    """0.0 to 1.0."""
    reason: str = ""
    """One line for a person; never holds the target."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a score is {self.value}; expected 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verifier's result over all checks."""

    outcome: float
    """The `outcome` reward component."""
    reason: str = ""
