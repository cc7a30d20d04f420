"""Losses whose ratio is that of a whole sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from agenthub.trainers.losses.base import LOG_RATIO_BOUND, PolicyLoss, Tokens
from agenthub.trainers.losses.clipped import check_clips

__all__ = ["GSPO", "GSPOToken", "sequence_log_ratio"]


def sequence_log_ratio(tokens: Tokens) -> Tensor:
    """f32[S]: mean over the sample's action tokens in the loss of lp - old; observations are no part of it."""
    sample = torch.as_tensor(tokens.batch.sample_of_token, dtype=torch.int64, device=tokens.lp.device)
    rows = tokens.batch.samples
    delta = torch.where(tokens.mask, tokens.lp - tokens.old, torch.zeros_like(tokens.lp))
    sums = tokens.lp.new_zeros(rows).index_add(0, sample, delta)
    sizes = tokens.lp.new_zeros(rows).index_add(0, sample, tokens.mask.to(tokens.lp.dtype))
    return (sums / sizes.clamp(min=1)).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPO(PolicyLoss):
    """max(-A s, -A clip(s, 1 - clip_low, 1 + clip_high)), s = exp(mean over the sequence of lp - old).

    Source: GSPO, arXiv 2507.18071, eqs. 5 and 7; verl `compute_policy_loss_gspo`. The bounds are a thousandth of PPO's.
    """

    inert_at_zero: ClassVar[bool] = False
    clip_low: float = 3e-4
    clip_high: float = 4e-4
    aggregation: str = "seq-mean-token-mean"

    def _check(self) -> None:
        check_clips(self.clip_low, self.clip_high)

    def ratio(self, tokens: Tokens) -> Tensor:
        """f32[T]: each token's sequence ratio, with the gradient that the loss takes."""
        sample = torch.as_tensor(tokens.batch.sample_of_token, dtype=torch.int64, device=tokens.lp.device)
        return sequence_log_ratio(tokens).exp().index_select(0, sample)

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate of the sequence, on each of its tokens; and the share of tokens beyond a bound."""
        s = self.ratio(tokens)
        clipped = s.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)
        loss = torch.maximum(-tokens.A * s, -tokens.A * clipped)
        beyond = (-tokens.A * clipped > -tokens.A * s).to(s.dtype)
        return loss, {"clip_fraction": tokens.mean(beyond)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPOToken(GSPO):
    """GSPO with s_t = sg(s) pi / sg(pi): the sequence's value, and each token's gradient its own, so that A may differ.

    Source: GSPO, arXiv 2507.18071, eqs. 13 and 14.
    """

    def ratio(self, tokens: Tokens) -> Tensor:
        """f32[T]"""
        sample = torch.as_tensor(tokens.batch.sample_of_token, dtype=torch.int64, device=tokens.lp.device)
        value = sequence_log_ratio(tokens).detach().exp().index_select(0, sample)
        return value * (tokens.lp - tokens.lp.detach()).exp()
