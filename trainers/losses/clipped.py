"""Losses that bound the ratio token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agenthub.trainers.losses.base import PolicyLoss, Tokens, log_ratio

__all__ = ["BAPO", "CISPO", "PPO", "Bounds", "clipped_surrogate"]


def clipped_surrogate(
    lp: Tensor, old_lp: Tensor, A: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None
) -> Tensor:
    """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), r = exp(lp - old_lp); where A < 0 at most -A * dual_clip.

    Source: Schulman et al. 2017, eq. 7; the two bounds of DAPO, arXiv 2503.14476; the dual clip of Ye et al. 2020,
    eq. 5. f32[T] in and out; the log-ratio is held within +-20. Gradient flows through `lp` alone; the caller
    masks and normalises.
    """
    ratio = log_ratio(lp, old_lp).exp()
    A = A.detach()
    loss = torch.maximum(-A * ratio, -A * ratio.clamp(1.0 - clip_low, 1.0 + clip_high))
    if dual_clip is None:
        return loss
    return torch.where(A < 0, torch.minimum(loss, -A * dual_clip), loss)


def check_clips(clip_low: float, clip_high: float, dual_clip: float | None = None) -> None:
    """Refuse bounds that make no sense.

    Raises:
        ValueError: so they are.
    """
    if not 0.0 <= clip_low < 1.0 or clip_high < 0.0:
        raise ValueError(f"clip_low {clip_low} must be in 0 to 1 and clip_high {clip_high} not negative")
    if dual_clip is not None and dual_clip <= 1.0:
        raise ValueError(f"dual_clip is {dual_clip}; expected more than 1, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class PPO(PolicyLoss):
    """The clipped surrogate of PPO, with DAPO's two bounds and the dual clip.

    Source: arXiv 1707.06347, eq. 7; DAPO, arXiv 2503.14476; dual clip, arXiv 1912.09729, eq. 5.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = 3.0
    """Bound on the loss of tokens with a negative advantage, as a multiple of |A|; None switches it off."""

    def _check(self) -> None:
        check_clips(self.clip_low, self.clip_high, self.dual_clip)

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate, and the share of tokens beyond a bound."""
        A = tokens.A
        loss = clipped_surrogate(
            tokens.lp, tokens.old, A, clip_low=self.clip_low, clip_high=self.clip_high, dual_clip=self.dual_clip
        )
        with torch.no_grad():
            ratio = (tokens.lp - tokens.old).exp()
            outside = torch.where(A > 0, ratio > 1.0 + self.clip_high, ratio < 1.0 - self.clip_low)
            outside = outside & tokens.mask & (A != 0)
            clip_fraction = outside.sum() / tokens.mask.sum().clamp(min=1)
        return loss, {"clip_fraction": clip_fraction}


@dataclass(frozen=True, slots=True, kw_only=True)
class CISPO(PolicyLoss):
    """-sg(clip(r, low, high)) A lp: a bounded weight, and every token keeps its gradient.

    Source: CISPO, arXiv 2506.13585; TRL bounds above alone (`low` 0).
    """

    low: float = 0.0
    high: float = 5.0
    """The bound itself, not its distance from 1."""

    def _check(self) -> None:
        if not 0.0 <= self.low <= 1.0 <= self.high:
            raise ValueError(f"low {self.low} and high {self.high} must have 1 between them, and low not be negative")

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted log-probability, and the share of tokens whose weight is bounded."""
        ratio = tokens.ratio.detach()
        bounded = ratio.clamp(self.low, self.high)
        return -bounded * tokens.A * tokens.lp, {"clip_fraction": tokens.mean((bounded != ratio).to(ratio.dtype))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What BAPO's search ended at."""

    low: float
    high: float
    positive: float
    """Sum of A min(r, high) over A >= 0."""
    negative: float
    """Sum of |A| max(r, low) over A < 0."""

    @property
    def pos_over_neg(self) -> float:
        """Infinite where nothing is negative, 0 where there is no advantage at all."""
        if self.negative:
            return self.positive / self.negative
        return float("inf") if self.positive else 0.0

    @property
    def pos_share(self) -> float:
        """0 where there is no advantage at all."""
        whole = self.positive + self.negative
        return self.positive / whole if whole else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BAPO(PolicyLoss):
    """PPO whose bounds are raised until positive advantages contribute their share.

    `high_first` (paper): the upper bound is raised to its maximum, then the lower one, until P / (P + N) >= pos_share,
    P = sum A min(r, high) over A >= 0 and N = sum |A| max(r, low) over A < 0. `low_first` (released code): the lower
    bound first, until P / N >= pos_over_neg; either target goes with either order. Raising the lower bound can only
    raise N, so in that order it always runs to its maximum first where the target is missed.
    Source: BAPO, arXiv 2510.18927; WooooDyy/BAPO, recipe/bapo/policy_loss.py.
    """

    order: str = "high_first"
    """high_first (paper), low_first (code)"""
    low_start: float = 0.6
    low_max: float = 0.9
    low_step: float = 0.02
    high_start: float = 1.2
    high_max: float = 3.0
    high_step: float = 0.05
    pos_share: float | None = None
    """Target as P / (P + N); 0.4 for `high_first` where neither is given."""
    pos_over_neg: float | None = None
    """Target as P / N; 1.0 for `low_first` where neither is given."""
    dual_clip: float | None = 3.0

    def _check(self) -> None:
        if self.order not in ("high_first", "low_first"):
            raise ValueError(f"order is {self.order!r}; expected one of high_first, low_first")
        if not 0.0 < self.low_start <= self.low_max <= self.high_start <= self.high_max:
            raise ValueError("bounds must rise: 0 < low_start <= low_max <= high_start <= high_max")
        if self.pos_share is not None and self.pos_over_neg is not None:
            raise ValueError("pos_share and pos_over_neg are two forms of one target; give one")
        if min(self.low_step, self.high_step) <= 0.0:
            raise ValueError(f"low_step {self.low_step} and high_step {self.high_step} must be more than 0")
        check_clips(0.0, 0.0, self.dual_clip)

    @torch.no_grad()
    def bounds(self, ratio: Tensor, A: Tensor) -> Bounds:
        """The bounds for these tokens: f32[T] each, of the loss's mask alone."""
        good, bad = A >= 0, A < 0
        r_good, A_good, r_bad, A_bad = ratio[good], A[good], ratio[bad], -A[bad]

        def at(lows: int, highs: int) -> Bounds:
            low = min(self.low_start + lows * self.low_step, self.low_max)
            high = min(self.high_start + highs * self.high_step, self.high_max)
            positive = float((r_good.clamp(max=high) * A_good).sum())
            return Bounds(low=low, high=high, positive=positive, negative=float((r_bad.clamp(min=low) * A_bad).sum()))

        found = at(lows := 0, highs := 0)
        while not self._enough(found):
            raise_high = found.high < self.high_max and (self.order == "high_first" or found.low >= self.low_max)
            if not raise_high and found.low >= self.low_max:
                break
            lows, highs = (lows, highs + 1) if raise_high else (lows + 1, highs)
            found = at(lows, highs)
        return found

    def _enough(self, found: Bounds) -> bool:
        share, over = self.pos_share, self.pos_over_neg
        if share is None and over is None:
            share, over = (0.4, None) if self.order == "high_first" else (None, 1.0)
        # A target that is met but for rounding is met.
        return found.pos_share >= share - 1e-12 if share is not None else found.pos_over_neg >= (over or 0.0) - 1e-12

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO between the bounds, and the bounds."""
        found = self.bounds(tokens.ratio.detach()[tokens.mask], tokens.A[tokens.mask])
        loss = clipped_surrogate(
            tokens.lp,
            tokens.old,
            tokens.A,
            clip_low=1.0 - found.low,
            clip_high=found.high - 1.0,
            dual_clip=self.dual_clip,
        )
        shown = {"clip_low": found.low, "clip_high": found.high, "positive_share": found.pos_share}
        return loss, {name: loss.new_tensor(value) for name, value in shown.items()}
