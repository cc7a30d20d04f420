"""From token losses to one number: the aggregation modes by name, each with its denominator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agenthub.records import frozen

__all__ = ["MODES", "Term", "aggregate", "total"]

MODES = ("seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "token-mean", "token-sum")


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


def aggregate(loss: Tensor, mask: Tensor, sample: Tensor, mode: str, *, max_length: int = 0) -> Tensor:
    """Token losses to one number; 0 with a gradient of 0 where the mask is empty.

    token-mean: sum over masked tokens / masked tokens.
    token-sum: sum over masked tokens.
    seq-mean-token-sum: mean over samples of their sum.
    seq-mean-token-mean: mean over samples of their mean.
    seq-mean-token-sum-norm: seq-mean-token-sum / max_length, a constant (Dr. GRPO).
    Samples without a masked token count in no mean (verl `agg_loss`). A masked token's value is never read, so a NaN
    there is harmless.

    Args:
        loss: f32[T]. mask: bool[T]. sample: i64[T], index of the token's sample.
    """
    if mode not in MODES:
        raise ValueError(f"aggregation is {mode!r}; expected one of {', '.join(MODES)}")
    loss = torch.where(mask, loss, torch.zeros_like(loss))
    if mode == "token-sum":
        return loss.sum()
    if mode == "token-mean":
        return loss.sum() / mask.sum().clamp(min=1)
    rows = int(sample.max()) + 1 if sample.numel() else 1
    sums = loss.new_zeros(rows).index_add(0, sample, loss)
    sizes = loss.new_zeros(rows).index_add(0, sample, mask.to(loss.dtype))
    if mode == "seq-mean-token-mean":
        sums = sums / sizes.clamp(min=1)
    mean = sums.sum() / (sizes > 0).sum().clamp(min=1)
    if mode == "seq-mean-token-sum":
        return mean
    if mode == "seq-mean-token-sum-norm" and max_length < 1:
        raise ValueError("seq-mean-token-sum-norm needs a max_length of 1 or more")
    return mean / max_length if mode == "seq-mean-token-sum-norm" else mean


def total(terms: Sequence[Term], sample: Tensor) -> Tensor:
    """The sum of the aggregated terms, each with its coefficient.

    Args:
        sample: i64[T], index of the token's sample.
    """
    parts = [
        term.coefficient * aggregate(term.loss, term.mask, sample, term.aggregation, max_length=term.max_length)
        for term in terms
    ]
    return torch.stack(parts).sum()
