"""From token losses to one number: the aggregation modes by name, each with its denominator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from agenthub.records import frozen
from agenthub.trainers.types import Batch

__all__ = ["MODES", "Axes", "Term", "aggregate", "check_mode", "total"]

MODES = (
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
    "token-mean",
    "token-sum",
    "traj-mean-turn-mean",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One summand of the loss."""

    loss: Tensor
    """f32[T]"""
    mask: Tensor
    """bool[T]"""
    aggregation: str
    coefficient: float = 1.0
    max_length: int = 0
    """The constant length that `seq-mean-token-sum-norm` divides by; unused elsewhere."""
    metrics: Mapping[str, Tensor] = field(default_factory=frozen)
    """Detached scalars by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What a token belongs to; each i64[T]."""

    sample: Tensor
    turn: Tensor | None = None
    trajectory: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Axes:
        """Those of a batch."""
        rows = (batch.sample_of_token, batch.turn_of_token, batch.trajectory_of_token)
        sample, turn, trajectory = (torch.as_tensor(np.array(row), dtype=torch.int64, device=device) for row in rows)
        return cls(sample=sample, turn=turn, trajectory=trajectory)


def check_mode(mode: str, max_length: int) -> None:
    """Refuse an aggregation that does not exist or lacks its length.

    Raises:
        ValueError: so it is.
    """
    if mode not in MODES:
        raise ValueError(f"aggregation is {mode!r}; expected one of {', '.join(MODES)}")
    if mode == "seq-mean-token-sum-norm" and max_length < 1:
        raise ValueError("seq-mean-token-sum-norm needs a max_length of 1 or more")


def aggregate(loss: Tensor, mask: Tensor, axes: Axes, mode: str, *, max_length: int = 0) -> Tensor:
    """Token losses to one number; 0 with a gradient of 0 where the mask is empty.

    token-mean: sum over masked tokens / masked tokens.
    token-sum: sum over masked tokens.
    seq-mean-token-sum: mean over samples of their sum.
    seq-mean-token-mean: mean over samples of their mean.
    seq-mean-token-sum-norm: seq-mean-token-sum / max_length, a constant (Dr. GRPO).
    traj-mean-turn-mean: mean over trajectories of the mean over their turns of the turn's mean (Flow-GRPO).
    What has no masked token counts in no mean (verl `agg_loss`). A token off the mask is never read, so a NaN there is
    harmless.

    Args:
        loss: f32[T]. mask: bool[T].
    """
    check_mode(mode, max_length)
    loss = torch.where(mask, loss, torch.zeros_like(loss))
    if mode == "token-sum":
        return loss.sum()
    if mode == "token-mean":
        return loss.sum() / mask.sum().clamp(min=1)
    if mode == "traj-mean-turn-mean":
        return _turn_mean(loss, mask, axes)
    sums, sizes = _by(loss, mask, axes.sample)
    if mode == "seq-mean-token-mean":
        sums = sums / sizes.clamp(min=1)
    mean = sums.sum() / (sizes > 0).sum().clamp(min=1)
    return mean / max_length if mode == "seq-mean-token-sum-norm" else mean


def _by(loss: Tensor, mask: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the loss, number of masked tokens) of each owner."""
    rows = int(owner.max()) + 1 if owner.numel() else 1
    sums = loss.new_zeros(rows).index_add(0, owner, loss)
    return sums, loss.new_zeros(rows).index_add(0, owner, mask.to(loss.dtype))


def _turn_mean(loss: Tensor, mask: Tensor, axes: Axes) -> Tensor:
    if axes.turn is None or axes.trajectory is None:
        raise ValueError("traj-mean-turn-mean needs each token's turn and trajectory")
    sums, sizes = _by(loss, mask, axes.turn)
    owner = torch.zeros_like(sums, dtype=torch.int64).index_copy(0, axes.turn, axes.trajectory)
    totals, turns = _by(sums / sizes.clamp(min=1), sizes > 0, owner)
    return (totals / turns.clamp(min=1)).sum() / (turns > 0).sum().clamp(min=1)


def total(terms: Sequence[Term], axes: Axes) -> Tensor:
    """The sum of the aggregated terms, each with its coefficient."""
    parts = [
        term.coefficient * aggregate(term.loss, term.mask, axes, term.aggregation, max_length=term.max_length)
        for term in terms
    ]
    return torch.stack(parts).sum()
