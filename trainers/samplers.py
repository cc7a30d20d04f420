"""Samplers: which tasks the next update plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agenthub.errors import UserError
from agenthub.trainers.types import Batch

__all__ = ["Sampler", "Uniform", "UniformState"]


class Sampler(Protocol):
    """Draws tasks and may learn from how they went."""

    def next(self, k: int) -> list[str]:
        """Ids of the next `k` tasks."""

    def observe(self, batch: Batch) -> None:
        """Take note of a finished batch."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next draws depend on, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


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
        self._tasks, self._seed, self._drawn = list(tasks), seed, 0
        self._pass, self._order = -1, np.empty(0, np.intp)

    def next(self, k: int) -> list[str]:
        """Ids of the next `k` tasks."""
        return [self._one() for _ in range(k)]

    def _one(self) -> str:
        number, place = divmod(self._drawn, len(self._tasks))
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self._seed, number]).permutation(len(self._tasks))
        self._drawn += 1
        return self._tasks[int(self._order[place])]

    def observe(self, batch: Batch) -> None:
        """Nothing: every task stays equally likely."""

    def state_dict(self) -> dict[str, Any]:
        """How many tasks have been drawn."""
        return {"drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after as many draws."""
        self._drawn, self._pass = int(state["drawn"]), -1
