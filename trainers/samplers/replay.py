"""A first-in-first-out buffer of whole groups that train again beside fresh ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agenthub.codec import decode, encode
from agenthub.records import Trajectory
from agenthub.trainers.samplers.uniform import UniformState

__all__ = ["FifoReplay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FifoReplay:
    """Tasks uniformly; beside each update's fresh groups `groups` older ones train again.

    Tokens keep the version and the log-probabilities of the weights that sampled them, so that a correction can weigh
    them.
    Source: ReVal, arXiv 2603.23355 (buffer 5120 trajectories); ReMix, arXiv 2507.06892.
    """

    capacity: int = 64
    """Groups."""
    groups: int = 8
    """Replayed an update."""

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.groups < 0:
            raise ValueError(f"capacity {self.capacity} must be 1 or more, groups {self.groups} not negative")

    def start(self, tasks: Sequence[str], seed: int) -> FifoReplayState:
        """A sampler over these tasks."""
        return FifoReplayState(self, tasks, seed)


class FifoReplayState(UniformState):
    """The buffer."""

    def __init__(self, config: FifoReplay, tasks: Sequence[str], seed: int) -> None:
        super().__init__(tasks, seed)
        self._config = config
        self._buffer: list[list[Trajectory]] = []
        self._rounds = 0

    def replay(self, fresh: Sequence[Trajectory]) -> list[Trajectory]:
        """Older groups drawn without replacement; the fresh ones are remembered, the oldest forgotten."""
        rng = np.random.default_rng([self.seed, 7, self._rounds])
        self._rounds += 1
        size = min(self._config.groups, len(self._buffer))
        chosen = sorted(rng.choice(len(self._buffer), size=size, replace=False).tolist()) if size else []
        old = [trajectory for place in chosen for trajectory in self._buffer[place]]
        groups: dict[str, list[Trajectory]] = {}
        for trajectory in fresh:
            if trajectory.reward is not None:
                groups.setdefault(trajectory.group, []).append(trajectory)
        self._buffer = [*self._buffer, *groups.values()][-self._config.capacity :]
        return old

    def state_dict(self) -> dict[str, Any]:
        """Draws and the whole buffer."""
        rows = [[encode(trajectory) for trajectory in group] for group in self._buffer]
        return {"drawn": self.drawn, "rounds": self._rounds, "buffer": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        self._rounds = int(state["rounds"])
        self._buffer = [[decode(Trajectory, row) for row in group] for group in state["buffer"]]
