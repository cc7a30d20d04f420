"""Credit for whole trajectories: one number for each, compared within its group, on every action token of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agenthub.records import Ints
from agenthub.trainers.types import Batch, Bools, Doubles

__all__ = [
    "GRPO",
    "OPMD",
    "RLOO",
    "AsymRE",
    "DrGRPO",
    "StepWise",
    "group_normalised",
    "leave_one_out",
    "on_tokens",
    "positive",
]


def on_tokens(batch: Batch, per_trajectory: Doubles) -> Doubles:
    """f64[T]: a trajectory's number on its action tokens, 0 elsewhere."""
    return np.where(batch.action_mask, per_trajectory[batch.trajectory_of_token], 0.0)


def group_normalised(values: Doubles, group: Ints, counts: Bools, *, eps: float | None, ddof: int = 1) -> Doubles:
    """(value - mean) / (std + eps) within each group, with the mean and deviation of the members that count.

    A group with fewer than two members that count gives 0: it teaches nothing about the group. So do equal values,
    exactly, although their floating-point mean may differ from them by a rounding error.

    Args:
        values: f64[N]. group: i32[N]. counts: bool[N].
        eps: None leaves the division out.
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
        out[members] = (values[members] - mean) / (1.0 if eps is None else spread + eps)
    return out


def leave_one_out(values: Doubles, group: Ints, counts: Bools) -> Doubles:
    """value - mean of the group's other members that count; 0 where there is none.

    A member that does not count is compared with all that do.

    Args:
        values: f64[N]. group: i32[N]. counts: bool[N].
    """
    out = np.zeros_like(values)
    for name in np.unique(group):
        members = np.flatnonzero(group == name)
        known = values[members][counts[members]]
        if known.size and np.ptp(known) == 0.0:
            # Equal values give exactly 0, whatever the rounding of their sum.
            others = np.full(members.size, known[0])
        else:
            others = (known.sum() - np.where(counts[members], values[members], 0.0)) / np.maximum(
                known.size - counts[members], 1
            )
        alone = known.size - counts[members] < 1
        out[members] = np.where(alone, 0.0, values[members] - others)
    return out


def positive(**settings: float) -> None:
    """Refuse a setting that is not more than 0.

    Raises:
        ValueError: one is not.
    """
    for name, value in settings.items():
        if not value > 0.0:
            raise ValueError(f"{name} is {value}; expected more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO:
    """A_i = (R_i - mean) / (std + eps) over the group, on every action token of trajectory i.

    Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2, with the unbiased deviation of verl.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    eps: float = 1e-6
    """verl 1e-6, TRL 1e-4."""
    ddof: int = 1

    def __post_init__(self) -> None:
        positive(eps=self.eps)

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        return on_tokens(batch, group_normalised(batch.rewards, group, counts, eps=self.eps, ddof=self.ddof))


@dataclass(frozen=True, slots=True, kw_only=True)
class DrGRPO:
    """A_i = R_i - mean over the group. Goes with an aggregation that divides by a constant length.

    Source: Dr. GRPO, arXiv 2503.20783.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        return on_tokens(batch, group_normalised(batch.rewards, group, counts, eps=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class RLOO:
    """A_i = R_i - mean of the others' rewards.

    Source: arXiv 2402.14740; verl `compute_rloo_outcome_advantage`.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        return on_tokens(batch, leave_one_out(batch.rewards, batch.group_of_trajectory, batch.trajectory_in_stats))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWise:
    """The last step's group-normalised advantage, copied to every earlier step, optionally shared among the steps.

    Source: Trinity-RFT, `step_wise_grpo`.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    eps: float = 1e-6
    per_step: bool = False
    """Divide by the trajectory's number of turns."""

    def __post_init__(self) -> None:
        positive(eps=self.eps)

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        a_last = group_normalised(batch.rewards, group, counts, eps=self.eps)
        if self.per_step:
            a_last = a_last / np.maximum(np.bincount(batch.trajectory_of_turn, minlength=batch.trajectories), 1)
        return on_tokens(batch, a_last)


@dataclass(frozen=True, slots=True, kw_only=True)
class OPMD:
    """A_i = R_i - mean, or R_i - tau log mean exp(R / tau), over the group.

    Source: OPMD as in Trinity-RFT; arXiv 2509.24203.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    baseline: str = "mean"
    """mean, logavgexp"""
    tau: float = 1.0

    def __post_init__(self) -> None:
        positive(tau=self.tau)
        if self.baseline not in ("logavgexp", "mean"):
            raise ValueError(f"baseline is {self.baseline!r}; expected one of logavgexp, mean")

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        centred = group_normalised(batch.rewards, group, counts, eps=None)
        if self.baseline == "mean":
            return on_tokens(batch, centred)
        out = np.zeros_like(centred)
        for name in np.unique(group):
            members = group == name
            known = batch.rewards[members & counts]
            if known.size > 1 and np.ptp(known) > 0.0:
                top = known.max()
                soft = top + self.tau * np.log(np.mean(np.exp((known - top) / self.tau)))
                out[members] = batch.rewards[members] - soft
            else:
                out[members] = centred[members]
        return on_tokens(batch, out)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsymRE:
    """A_i = R_i - (mean - margin): a baseline below the mean, so that what is good weighs more than what is bad.

    Source: AsymRE, arXiv 2506.20520; Trinity-RFT (arXiv 2509.24203).
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    margin: float = 0.1

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        return on_tokens(batch, group_normalised(batch.rewards, group, counts, eps=None) + self.margin)
