"""Filters by calls, groups, length and forks; SimpleTIR's is in `filters`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agenthub.trainers.filters import NoFilter, SimpleTIR
from agenthub.trainers.types import Batch, Bools, Doubles, Filtered, Reason

__all__ = ["THOR", "AllCallsFailed", "DapoDynamic", "GroupGate", "NoCall", "Overlong"]

EFFECTS = ("drop", "mask")


def _left_out(batch: Batch, found: Bools, reason: Reason, *, drop: bool) -> Filtered:
    """`NoFilter`, less the trajectories found: out of the loss, and where `drop` out of the statistics too."""
    base = NoFilter().apply(batch)
    rows = found[batch.trajectory_of_sample]
    return replace(
        base,
        in_loss=base.in_loss & ~found[batch.trajectory_of_token],
        in_stats=base.in_stats & ~rows if drop else base.in_stats,
        reasons=dict.fromkeys(map(int, np.flatnonzero(rows)), reason) | dict(base.reasons),
    )


def _per_trajectory(batch: Batch, per_turn: NDArray[np.int64]) -> Doubles:
    return np.bincount(batch.trajectory_of_turn, per_turn, minlength=batch.trajectories).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    effect: str = "mask"
    """mask: out of the loss; drop: out of the group's statistics too."""

    def __post_init__(self) -> None:
        if self.effect not in EFFECTS:
            raise ValueError(f"effect is {self.effect!r}; expected one of {', '.join(EFFECTS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCall(_Effect):
    """Trajectories without a single call leave the loss, answered or not."""

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons."""
        calls = _per_trajectory(batch, np.array([turn.calls for turn in batch.turns], np.int64))
        return _left_out(batch, calls == 0, Reason.NO_CALL, drop=self.effect == "drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllCallsFailed(_Effect):
    """Trajectories whose every call failed leave the loss; one without calls stays."""

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons."""
        calls = _per_trajectory(batch, np.array([turn.calls for turn in batch.turns], np.int64))
        failed = _per_trajectory(batch, np.array([turn.failed_calls for turn in batch.turns], np.int64))
        return _left_out(batch, (calls > 0) & (failed >= calls), Reason.CALLS_FAILED, drop=self.effect == "drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong(_Effect):
    """Truncated trajectories leave the loss.

    Source: DAPO, arXiv 2503.14476 (overlong filtering); TRL `mask_truncated_completions` keeps them in the
    statistics.
    """

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons."""
        return _left_out(batch, batch.truncated, Reason.TRUNCATED, drop=self.effect == "drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupGate:
    """Groups with too few members, too little spread, or a mean outcome outside the gate leave the loss.

    Source: SimpleTIR, arXiv 2509.02479, simpletir_ray_trainer.py, without its void turns.
    """

    min_n: int = 4
    std_min: float = 1e-3
    acc_low: float = 0.0
    acc_high: float = 1.0

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons."""
        gate = SimpleTIR(
            effect="none", min_n=self.min_n, std_min=self.std_min, acc_low=self.acc_low, acc_high=self.acc_high
        )
        return gate.apply(batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class DapoDynamic:
    """Groups that are all right, all wrong, or without spread leave the loss; `target_groups` is how many are wanted.

    Source: DAPO, arXiv 2503.14476; verl recipe/dapo, `filter_groups`.
    """

    target_groups: int = 1

    def needs_more(self, filtered: Filtered) -> bool:
        """Fewer groups are left than wanted, so that more should be played."""
        return sum(filtered.keep_group.values()) < self.target_groups

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons."""
        base = NoFilter().apply(batch)
        counts = batch.with_filter(base).trajectory_in_stats
        gate = [self._gate(batch, counts & (batch.group_of_trajectory == g)) for g in range(len(batch.groups))]
        return gated(batch, base, gate)

    def _gate(self, batch: Batch, members: Bools) -> Reason | None:
        rewards, outcomes = batch.rewards[members], batch.outcomes[members]
        accuracy = float(outcomes.mean()) if outcomes.size else 0.0
        if accuracy <= 0.0:
            return Reason.TOO_HARD
        if accuracy >= 1.0:
            return Reason.TOO_EASY
        return Reason.NO_SPREAD if np.ptp(rewards) == 0.0 else None


def gated(batch: Batch, base: Filtered, gate: list[Reason | None], exempt: Bools | None = None) -> Filtered:
    """`base`, less the groups that the gate gives a reason for, but for the trajectories that are exempt."""
    free = np.zeros(batch.trajectories, bool) if exempt is None else exempt
    shut = np.array([reason is not None for reason in gate], bool)[batch.group_of_trajectory] & ~free
    found: dict[int, Reason] = {}
    for sample, n in enumerate(batch.trajectory_of_sample.tolist()):
        reason = gate[int(batch.group_of_trajectory[n])]
        if reason is not None and shut[n]:
            found[sample] = reason
    return replace(
        base,
        in_loss=base.in_loss & ~shut[batch.trajectory_of_token],
        keep_group={name: reason is None for name, reason in zip(batch.groups, gate, strict=True)},
        reasons=found | dict(base.reasons),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class THOR:
    """Trajectories with a failed call leave loss and statistics; so does a group that keeps too few of its members.

    Of a forked trajectory the turns before the fork are out of the loss; its own failures count in its reward, and it
    belongs to a group of its own, so that neither rule is for it.
    Source: THOR, arXiv 2509.13761; JingMog/THOR, `code_filter_kept`, `pass_optim_mask`.
    """

    keep: float = 0.5
    """Least share of a group's members, rounded up."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.keep <= 1.0:
            raise ValueError(f"keep is {self.keep}; expected 0 to 1")

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons."""
        failed = _per_trajectory(batch, np.array([turn.failed_calls for turn in batch.turns], np.int64)) > 0
        roots = batch.fork_turn < 0
        base = _left_out(batch, failed & roots, Reason.EXECUTION_FAILED, drop=True)
        gate = [self._gate(roots & (batch.group_of_trajectory == g), failed) for g in range(len(batch.groups))]
        filtered = gated(batch, base, gate, exempt=~roots)
        prefix = batch.turn_index[batch.turn_of_token] < batch.fork_turn[batch.trajectory_of_token]
        hidden = np.unique(batch.sample_of_token[prefix & filtered.in_loss]).tolist()
        return replace(
            filtered,
            in_loss=filtered.in_loss & ~prefix,
            reasons=dict.fromkeys(hidden, Reason.PREFIX) | dict(filtered.reasons),
        )

    def _gate(self, members: Bools, failed: Bools) -> Reason | None:
        kept = int((members & ~failed).sum())
        return Reason.TOO_FEW if members.any() and kept < math.ceil(self.keep * int(members.sum())) else None
