"""Evaluation: avg@k and pass@k over tasks, with confidence intervals.

The unit of both is the task: k episodes on one task are not k independent trials of the policy, so intervals resample
tasks, never episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from agenthub.records import Trajectory
from agenthub.rollout import Collector, Play
from agenthub.trainers.batch import solved
from agenthub.trainers.types import Doubles

__all__ = ["Evaluation", "Interval", "Rollouts", "evaluate", "pass_at_k", "score", "task_interval"]

RESAMPLES = 2000
EPISODES_AT_ONCE = 128


class Rollouts(Protocol):
    """What plays episodes: `rollout.Collector`, or a fake."""

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """One trajectory for each member of each play."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over tasks and its 95% confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a policy scored on some tasks."""

    k: int
    """Episodes asked for on each task."""
    solved: Mapping[str, tuple[bool, ...]]
    """By task, whether each scored episode got the full outcome."""
    unscored: int
    """Episodes without a reward (`env_fault`: the task is broken); they count in nothing."""
    avg: Interval
    """avg@k: mean over tasks of the share of solved episodes."""
    pass_at: Mapping[int, Interval]
    """pass@j by j, the unbiased estimator, over the tasks with at least j scored episodes."""
    turns: float
    """Mean turns of an episode."""
    replayed: int = 0
    """Episodes that were played again because our side had lost them (`infra_fault`)."""

    def row(self) -> dict[str, Any]:
        """JSON values for metrics.jsonl: without the single episodes."""
        return {
            "tasks": len(self.solved),
            "k": self.k,
            "avg": _row(self.avg),
            "pass_at": {str(j): _row(interval) for j, interval in self.pass_at.items()},
            "unscored": self.unscored,
            "replayed": self.replayed,
            "turns": self.turns,
        }


def _row(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of k episodes, drawn without replacement from n of which c are solved, is solved.

    1 - C(n - c, k) / C(n, k). Source: Chen et al. 2021, arXiv 2107.03374, eq. 1.

    Raises:
        ValueError: not 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n; got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def task_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean of one value in [0, 1] per task, with a percentile bootstrap over tasks at 95%.

    Where all tasks have the same value, which no resampling can vary, the interval is Wilson's for that many tasks.
    """
    array: Doubles = np.asarray(values, np.float64)
    if not array.size:
        return Interval(mean=0.0, low=0.0, high=1.0)
    mean = float(array.mean())
    if np.ptp(array) == 0.0:
        return Interval(mean=mean, **_wilson(mean, array.size))
    picks = np.random.default_rng(seed).integers(0, array.size, (RESAMPLES, array.size))
    low, high = np.quantile(array[picks].mean(axis=1), [0.025, 0.975])
    return Interval(mean=mean, low=float(low), high=float(high))


def _wilson(mean: float, n: int) -> dict[str, float]:
    z = 1.959964
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return {"low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def score(trajectories: Sequence[Trajectory], k: int) -> Evaluation:
    """The evaluation of finished episodes; `k` is how many were asked for on each task."""
    by_task: dict[str, list[bool]] = {}
    for trajectory in trajectories:
        if trajectory.reward is not None:
            by_task.setdefault(trajectory.task, []).append(solved(trajectory))
    levels = [j for j in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if j < k] + [k]
    pass_at = {
        j: task_interval([pass_at_k(len(row), sum(row), j) for row in by_task.values() if len(row) >= j])
        for j in levels
        if any(len(row) >= j for row in by_task.values())
    }
    return Evaluation(
        k=k,
        solved={task: tuple(row) for task, row in by_task.items()},
        unscored=sum(trajectory.reward is None for trajectory in trajectories),
        avg=task_interval([float(np.mean(row)) for row in by_task.values()]),
        pass_at=pass_at,
        turns=float(np.mean([len(trajectory.turns) for trajectory in trajectories])) if trajectories else 0.0,
    )


async def evaluate(
    rollouts: Rollouts, suite: str, tasks: Sequence[str], *, k: int, seed: int, label: str = "eval"
) -> tuple[Evaluation, list[Trajectory]]:
    """Play k episodes on each task and score them.

    Args:
        label: starts the names of the groups, so that two evaluations on one hub do not share any.
    """
    at_once = max(1, EPISODES_AT_ONCE // k)
    played: list[Trajectory] = []
    replayed = 0
    for start in range(0, len(tasks), at_once):
        plays = [Play(suite=suite, task=task, count=k, group=f"{label}/{task}") for task in tasks[start:][:at_once]]
        played += await rollouts.collect(plays, seed=seed)
        replayed += rollouts.stats.replayed if isinstance(rollouts, Collector) else 0
    return replace(score(played, k), replayed=replayed), played
