"""Credit: from rewards to an advantage for each action token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agenthub.records import Floats, Ints
from agenthub.trainers.types import Batch, Bools, Doubles

__all__ = ["GRPO", "MTGRPO", "group_normalised"]


def group_normalised(values: Doubles, group: Ints, counts: Bools, *, eps: float, ddof: int) -> Doubles:
    """(value - mean) / (std + eps) within each group, with the mean and deviation of the members that count.

    A group with fewer than two members that count gives 0: it teaches nothing about the group. So do equal values,
    exactly, although their floating-point mean may differ from them by a rounding error.

    Args:
        values: f64[N]. group: i32[N]. counts: bool[N].
        ddof: 1 for the unbiased deviation.
    """
    out = np.zeros_like(values)
    for name in np.unique(group):
        members = group == name
        known = values[members & counts]
        if known.size < 2:
            continue
        if np.ptp(known) == 0.0:
            mean, spread = float(known[0]), 0.0
        else:
            mean, spread = float(known.mean()), float(known.std(ddof=ddof))
        out[members] = (values[members] - mean) / (spread + eps)
    return out


def _positive_eps(eps: float) -> None:
    if eps <= 0.0:
        raise ValueError(f"eps is {eps}; expected more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO:
    """A_i = (R_i - mean) / (std + eps) over the group, on every action token of trajectory i.

    Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2, with the unbiased deviation of verl.
    """

    group_centred: ClassVar[bool] = True
    eps: float = 1e-6
    """verl 1e-6, TRL 1e-4."""
    ddof: int = 1

    def __post_init__(self) -> None:
        _positive_eps(self.eps)

    def advantage(self, batch: Batch) -> Floats:
        """f32[T]"""
        per_trajectory = group_normalised(
            batch.rewards, batch.group_of_trajectory, batch.trajectory_in_stats, eps=self.eps, ddof=self.ddof
        )
        return np.where(batch.action_mask, per_trajectory[batch.trajectory_of_token], 0.0).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class MTGRPO:
    """Tokens up to the first tool result get A_outcome + turn_coef * A_turn, later ones A_outcome.

    A_outcome is group-normalised from the outcome component, A_turn from the sum of the turn components. A trajectory
    without a tool result has the combined advantage throughout.
    Source: arXiv 2505.11821, SiliangZeng/Multi-Turn-RL-Agent, `_assign_advantages`.
    """

    group_centred: ClassVar[bool] = True
    turn_coef: float = 1.0
    eps: float = 1e-4
    ddof: int = 1

    def __post_init__(self) -> None:
        _positive_eps(self.eps)

    def advantage(self, batch: Batch) -> Floats:
        """f32[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        turn_totals = np.zeros(batch.trajectories, np.float64)
        np.add.at(turn_totals, batch.trajectory_of_turn, batch.turn_rewards)
        a_outcome = group_normalised(batch.outcomes, group, counts, eps=self.eps, ddof=self.ddof)
        a_turn = group_normalised(turn_totals, group, counts, eps=self.eps, ddof=self.ddof)
        owner = batch.trajectory_of_token
        early = _until_first_result(batch)[batch.turn_of_token]
        a_token = a_outcome[owner] + np.where(early, self.turn_coef * a_turn[owner], 0.0)
        return np.where(batch.action_mask, a_token, 0.0).astype(np.float32)


def _until_first_result(batch: Batch) -> Bools:
    """bool[K]: True on the turns up to and with the first one of their trajectory that got a tool result."""
    early = np.ones(len(batch.turns), bool)
    seen: set[int] = set()
    for k, (turn, n) in enumerate(zip(batch.turns, batch.trajectory_of_turn.tolist(), strict=True)):
        early[k] = n not in seen
        if turn.observed:
            seen.add(n)
    return early
