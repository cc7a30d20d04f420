"""Samplers: which tasks the next update plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agenthub.errors import UserError
from agenthub.records import Trajectory
from agenthub.trainers.types import EXPERT, Batch

__all__ = ["Sampler", "Uniform", "UniformState", "by_task"]


class Sampler(Protocol):
    """Draws tasks and may learn from how they went."""

    def next(self, k: int) -> list[str]:
        """Ids of the next `k` tasks."""

    def replay(self, fresh: Sequence[Trajectory]) -> list[Trajectory]:
        """Earlier trajectories that train beside these, which it may remember; empty for most."""

    def observe(self, batch: Batch) -> None:
        """Take note of a finished batch, filtered and with its advantages."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next draws depend on, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def by_task(batch: Batch) -> dict[str, list[int]]:
    """Trajectories of each task, by the task's id within its suite; experts' tell nothing of the policy."""
    rows: dict[str, list[int]] = {}
    expert = batch.by(EXPERT)
    for n, name in enumerate(batch.tasks):
        if expert[n]:
            continue
        rows.setdefault(name.partition("/")[2] or name, []).append(n)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Every task once in a shuffled order, then again in another one."""

    def start(self, tasks: Sequence[str], seed: int) -> UniformState:
        """A sampler over these tasks.

        Raises:
            UserError: there is none.
        """
        return UniformState(tasks, seed)


class UniformState:
    """A position in the endless sequence of shuffled passes."""

    def __init__(self, tasks: Sequence[str], seed: int) -> None:
        if not tasks:
            raise UserError("the sampler was given no task: the split is empty")
        self.tasks, self.seed, self.drawn = list(tasks), seed, 0
        self._pass, self._order = -1, np.empty(0, np.intp)

    def next(self, k: int) -> list[str]:
        """Ids of the next `k` tasks."""
        return [self._one() for _ in range(k)]

    def _one(self) -> str:
        number, place = divmod(self.drawn, len(self.tasks))
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self.seed, number]).permutation(len(self.tasks))
        self.drawn += 1
        return self.tasks[int(self._order[place])]

    def replay(self, fresh: Sequence[Trajectory]) -> list[Trajectory]:
        """None."""
        return []

    def observe(self, batch: Batch) -> None:
        """Nothing: every task stays equally likely."""

    def state_dict(self) -> dict[str, Any]:
        """How many tasks have been drawn."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after as many draws."""
        self.drawn, self._pass = int(state["drawn"]), -1
