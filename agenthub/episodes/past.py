"""What an episode has been through, as far as a copy of it must know: turns, clock, limits, files put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agenthub.codec import decode, encode
from agenthub.errors import ForkRefused
from agenthub.records import Trajectory, Turn
from agenthub.suites.task import TaskLimits

__all__ = ["FileWrite", "Past", "Step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A turn that was played."""

    turn: Turn
    timeout_s: float | None
    """What the client gave its calls; None is the task's limit."""
    at_s: float
    """Seconds from the episode's opening to the end of the turn."""
    restored: bool = False
    """Its box was lost, and the state before the turn was restored: to make its calls again would lose a box again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWrite:
    """A file that was written from outside the sandbox, before the step of turn `turn`."""

    turn: int
    path: str
    data: bytes | None
    """None where the content is not kept any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The past of an episode up to a turn."""

    steps: tuple[Step, ...]
    writes: tuple[FileWrite, ...]
    limits: TaskLimits
    seconds: float
    """Seconds of the episode that are spent."""

    def until(self, turn: int) -> Past:
        """What was before the step of turn `turn`."""
        if turn == len(self.steps):
            return self
        steps = self.steps[:turn]
        writes = tuple(write for write in self.writes if write.turn <= turn)
        return Past(steps=steps, writes=writes, limits=self.limits, seconds=steps[-1].at_s if steps else 0.0)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns played."""
        return tuple(step.turn for step in self.steps)

    def facts(self) -> dict[str, Any]:
        """As JSON what a trajectory does not say; with it, `of` gives the past again, but for what was written."""
        return {
            "limits": encode(self.limits),
            "steps": [{"timeout_s": it.timeout_s, "at_s": it.at_s, "restored": it.restored} for it in self.steps],
            "writes": [{"turn": write.turn, "path": write.path} for write in self.writes],
        }

    @classmethod
    def of(cls, trajectory: Trajectory, facts: Mapping[str, Any] | None) -> Past:
        """The past of an episode that has ended.

        Raises:
            ForkRefused: its record does not say enough.
        """
        if facts is None:
            raise ForkRefused("the episode's record does not say how it was played")
        rows = zip(trajectory.turns, facts["steps"], strict=True)
        return cls(
            steps=tuple(Step(turn=turn, **row) for turn, row in rows),
            writes=tuple(FileWrite(data=None, **row) for row in facts["writes"]),
            limits=decode(TaskLimits, facts["limits"]),
            seconds=facts["steps"][-1]["at_s"] if facts["steps"] else 0.0,
        )
