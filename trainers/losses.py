"""Policy losses: token losses with their mask and aggregation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agenthub.trainers.aggregate import MODES, Term
from agenthub.trainers.types import Batch

__all__ = ["PPO", "clipped_surrogate"]

LOG_RATIO_BOUND = 20.0


def clipped_surrogate(
    lp: Tensor, old_lp: Tensor, A: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None
) -> Tensor:
    """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), r = exp(lp - old_lp); where A < 0 at most -A * dual_clip.

    Source: Schulman et al. 2017, eq. 7; the two bounds of DAPO, arXiv 2503.14476; the dual clip of Ye et al. 2020,
    eq. 5. f32[T] in and out; the log-ratio is held within +-20. Gradient flows through `lp` alone; the caller
    masks and normalises.
    """
    log_ratio = (lp - old_lp.detach()).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    ratio = log_ratio.exp()
    A = A.detach()
    loss = torch.maximum(-A * ratio, -A * ratio.clamp(1.0 - clip_low, 1.0 + clip_high))
    if dual_clip is None:
        return loss
    return torch.where(A < 0, torch.minimum(loss, -A * dual_clip), loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class PPO:
    """The clipped surrogate of PPO, with DAPO's two bounds and the dual clip."""

    needs: ClassVar[frozenset[str]] = frozenset()
    inert_at_zero: ClassVar[bool] = True
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = 3.0
    """Bound on the loss of tokens with a negative advantage, as a multiple of |A|; None switches it off."""
    aggregation: str = "token-mean"
    max_length: int = 0
    """Constant length of `seq-mean-token-sum-norm`."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.clip_low < 1.0 or self.clip_high < 0.0:
            raise ValueError(f"clip_low {self.clip_low} must be in 0 to 1 and clip_high {self.clip_high} not negative")
        if self.dual_clip is not None and self.dual_clip <= 1.0:
            raise ValueError(f"dual_clip is {self.dual_clip}; expected more than 1, or null")
        if self.aggregation not in MODES:
            raise ValueError(f"aggregation is {self.aggregation!r}; expected one of {', '.join(MODES)}")
        if self.aggregation == "seq-mean-token-sum-norm" and self.max_length < 1:
            raise ValueError("seq-mean-token-sum-norm needs a max_length of 1 or more")

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: Mapping[str, Any]) -> Sequence[Term]:
        """One term: w times the clipped surrogate on `batch.in_loss`."""
        old_lp = tensor_like(lp, batch.old_logprobs)
        mask = torch.as_tensor(np.array(batch.in_loss), device=lp.device)
        lp = torch.where(mask, lp, old_lp)
        loss = w.detach() * clipped_surrogate(
            lp, old_lp, A, clip_low=self.clip_low, clip_high=self.clip_high, dual_clip=self.dual_clip
        )
        with torch.no_grad():
            ratio = (lp - old_lp).exp()
            outside = torch.where(A > 0, ratio > 1.0 + self.clip_high, ratio < 1.0 - self.clip_low) & mask & (A != 0)
            metrics = {"clip_fraction": outside.sum() / mask.sum().clamp(min=1)}
        return [Term(loss=loss, mask=mask, aggregation=self.aggregation, max_length=self.max_length, metrics=metrics)]


def tensor_like(lp: Tensor, values: NDArray[Any]) -> Tensor:
    """`values` on the device and in the type of `lp`."""
    return torch.as_tensor(np.array(values), dtype=lp.dtype, device=lp.device)
