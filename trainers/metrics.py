"""The metrics of one update: a line of metrics.jsonl."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agenthub.records import Trajectory
from agenthub.trainers.batch import solved
from agenthub.trainers.filters import void_trajectories
from agenthub.trainers.types import Batch, Bools, Doubles, Reason

__all__ = ["TIMES", "Seconds", "correction_metrics", "rollout_metrics", "without_times"]

TIMES = ("seconds", "tokens_per_s")
"""Keys that differ between two runs that are otherwise the same."""


@dataclass(slots=True)
class Seconds:
    """Wall seconds by stage of one update."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add what the body takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Add to a stage."""
        self.spent[stage] = self.spent.get(stage, 0.0) + seconds

    def row(self) -> dict[str, float]:
        """Rounded to 0.1 ms."""
        return {stage: round(seconds, 4) for stage, seconds in self.spent.items()}


def rollout_metrics(trajectories: Sequence[Trajectory], batch: Batch, reasons: Mapping[int, Reason]) -> dict[str, Any]:
    """What was played and what of it trains.

    Args:
        trajectories: all that were collected. batch: the scored ones, filtered. reasons: the filter's, by sample.
    """
    scored = [trajectory for trajectory in trajectories if trajectory.reward is not None]
    dropped: Counter[str] = Counter(
        trajectory.outcome.value for trajectory in trajectories if trajectory.reward is None
    )
    of_trajectory = {int(batch.trajectory_of_sample[sample]): reason for sample, reason in reasons.items()}
    dropped.update(reason.value for reason in of_trajectory.values())
    names = sorted({name for trajectory in scored for name in trajectory.rewards})
    return {
        "success": float(np.mean([solved(trajectory) for trajectory in scored])),
        "reward": float(np.mean([trajectory.reward for trajectory in scored])),
        "rewards": {name: float(np.mean([t.rewards.get(name, 0.0) for t in scored])) for name in names},
        "void_rate": float(void_trajectories(batch).mean()),
        "truncated_rate": float(batch.truncated.mean()),
        "kept": int(np.unique(batch.trajectory_of_token[batch.in_loss]).size),
        "dropped": dict(sorted(dropped.items())),
        "turns": float(np.mean([len(trajectory.turns) for trajectory in scored])),
        "tokens": int(batch.action_mask.sum()),
        **_entropy(scored),
    }


def correction_metrics(batch: Batch, weights: Doubles, keep: Bools) -> dict[str, float]:
    """What a correction did to the tokens in the loss; nothing where it did nothing."""
    inside = batch.in_loss
    if not inside.any() or ((weights[inside] == 1.0).all() and keep[inside].all()):
        return {}
    return {
        "correction_weight": float(weights[inside].mean()),
        "correction_dropped": float((inside & (~keep | (weights == 0.0))).sum()),
    }


def _entropy(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean entropy of all sampled tokens, nats; nothing where an engine does not tell it."""
    generations = [turn.generation for trajectory in trajectories for turn in trajectory.turns if turn.generation]
    told = [generation.entropies for generation in generations if generation.entropies is not None]
    if not told or len(told) < len(generations):
        return {}
    return {"entropy": float(np.concatenate(told).mean(dtype=np.float64))}


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl as far as two equal runs agree on it."""
    return {key: value for key, value in row.items() if key not in TIMES}
