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
from agenthub.trainers.types import EXPERT, Batch, Bools, Doubles, Reason

__all__ = ["TIMES", "Seconds", "by_expert", "correction_metrics", "rollout_metrics", "without_times"]

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
    """What was played and what of it trains; experts' trajectories are counted apart, and nothing else tells of them.

    Args:
        trajectories: all that were collected. batch: the scored ones, filtered. reasons: the filter's, by sample.
    """
    scored = [one for one in trajectories if one.reward is not None and not by_expert(one)]
    dropped: Counter[str] = Counter(
        trajectory.outcome.value for trajectory in trajectories if trajectory.reward is None
    )
    own, own_tokens = ~batch.by(EXPERT), ~batch.tokens_by(EXPERT)
    of_trajectory = {int(batch.trajectory_of_sample[sample]): reason for sample, reason in reasons.items()}
    dropped.update(reason.value for reason in of_trajectory.values())
    names = sorted({name for trajectory in scored for name in trajectory.rewards})
    return {
        "success": _mean([solved(trajectory) for trajectory in scored]),
        "reward": _mean([trajectory.reward for trajectory in scored]),
        "rewards": {name: _mean([t.rewards.get(name, 0.0) for t in scored]) for name in names},
        "void_rate": _mean(void_trajectories(batch)[own]),
        "truncated_rate": _mean(batch.truncated[own]),
        "kept": int(np.unique(batch.trajectory_of_token[batch.in_loss & own_tokens]).size),
        "dropped": dict(sorted(dropped.items())),
        "turns": _mean([len(trajectory.turns) for trajectory in scored]),
        "tokens": int((batch.action_mask & own_tokens).sum()),
        **_entropy(scored),
        **_expert_metrics(batch),
        **_refill_metrics(scored),
    }


def _mean(values: Any) -> float | None:
    """None where the policy played nothing."""
    return float(np.mean(values)) if len(values) else None


def by_expert(trajectory: Trajectory) -> bool:
    """True where the tokens are not the policy's own."""
    return any(turn.generation is not None and turn.generation.policy == EXPERT for turn in trajectory.turns)


def _expert_metrics(batch: Batch) -> dict[str, Any]:
    """How many experts train, and how many of their tokens are in the loss."""
    if not batch.by(EXPERT).any():
        return {}
    tokens = int((batch.in_loss & batch.tokens_by(EXPERT)).sum())
    return {"experts": {"trajectories": int(batch.by(EXPERT).sum()), "tokens": tokens}}


def _refill_metrics(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Groups that were thrown away and played anew on another task, and the success over all that was played."""
    thrown = {one.group: one.metadata["thrown_away"] for one in trajectories if "thrown_away" in one.metadata}
    if not thrown:
        return {}
    groups: dict[str, list[bool]] = {}
    for one in trajectories:
        groups.setdefault(one.group, []).append(solved(one))
    rates = [float(np.mean(row)) for row in groups.values()]
    rates += [float(row["success"]) for rows in thrown.values() for row in rows]
    return {"refilled": sum(map(len, thrown.values())), "success_played": float(np.mean(rates))}


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
