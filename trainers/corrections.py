"""Corrections: weights for the gap between the engine that sampled a token and the model that trains on it.

rho = exp(old - rollout): old is the log-probability under the weights that the update starts from, rollout the one that
the engine reported. The log-ratio is held within +-20. Weights are numpy arrays: no gradient can flow through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agenthub.trainers.types import EXPERT, Batch, Bools, Doubles

__all__ = ["MIS", "OPSM", "TIS", "IcePop", "NoCorrection", "Rejection"]

LOG_RATIO_BOUND = 20.0
ROUNDING = 1e-9
"""A ratio is the exponential of a difference: one that is a bound but for this share of it is within."""
LEVELS = ("sequence", "token")


def log_rho(batch: Batch) -> Doubles:
    """f64[T]: held within +-20; 0 off the action tokens, on an expert's, and where a probability is unknown (NaN)."""
    gap = np.asarray(batch.old_logprobs, np.float64) - np.asarray(batch.logprobs, np.float64)
    known = batch.action_mask & ~batch.tokens_by(EXPERT) & ~np.isnan(gap)
    return np.clip(np.where(known, gap, 0.0), -LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def per_sample(batch: Batch, values: Doubles) -> Doubles:
    """f64[S]: sum over the sample's tokens."""
    return np.bincount(batch.sample_of_token, values, minlength=batch.samples).astype(np.float64)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCorrection:
    """Every weight is 1."""

    corrects: ClassVar[bool] = False

    def weights(self, batch: Batch) -> tuple[Doubles, Bools]:
        """(ones f64[T], all True bool[T])"""
        return np.ones(batch.tokens), np.ones(batch.tokens, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class TIS:
    """w = min(rho, cap), of the token, or of the sequence by the product over its action tokens, on each of them.

    Source: truncated importance sampling; verl `compute_rollout_correction_weights` (cap 2), TRL (cap 3).
    """

    corrects: ClassVar[bool] = True
    level: str = "token"
    """token, sequence"""
    cap: float = 2.0
    normalise: bool = False
    """Divide by the mean after the cut (self-normalised): over the batch's action tokens, or over its sequences."""

    def __post_init__(self) -> None:
        _choice("level", self.level, LEVELS)
        if self.cap <= 0.0:
            raise ValueError(f"cap is {self.cap}; expected more than 0")

    def ratios(self, batch: Batch) -> Doubles:
        """f64[T]: rho at this level before any cut; 1 off the action tokens."""
        gap = log_rho(batch)
        if self.level == "sequence":
            gap = np.clip(per_sample(batch, gap), -LOG_RATIO_BOUND, LOG_RATIO_BOUND)[batch.sample_of_token]
            gap = np.where(batch.action_mask & ~batch.tokens_by(EXPERT), gap, 0.0)
        return np.exp(gap)

    def cut(self, ratios: Doubles) -> Doubles:
        """What becomes of the ratios."""
        return np.minimum(ratios, self.cap)

    def weights(self, batch: Batch) -> tuple[Doubles, Bools]:
        """(weights f64[T], all True bool[T])"""
        w = self.cut(self.ratios(batch))
        places = np.flatnonzero(batch.action_mask)
        if self.level == "sequence":
            # A sequence's tokens share its weight, so that any of them stands for it.
            places = places[np.unique(batch.sample_of_token[places], return_index=True)[1]]
        if self.normalise and places.size and w[places].mean() > 1e-8:
            w = w / w[places].mean()
        return np.where(batch.action_mask, w, 1.0), np.ones(batch.tokens, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class MIS(TIS):
    """w = rho where rho <= cap, else 0: masked in place of truncated. The tokens stay in the denominator.

    Source: TRL `token_mask`, `sequence_mask` (its default, cap 3).
    """

    level: str = "sequence"
    cap: float = 3.0

    def cut(self, ratios: Doubles) -> Doubles:
        """What becomes of the ratios."""
        return np.where(ratios <= self.cap * (1.0 + ROUNDING), ratios, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IcePop(TIS):
    """w = rho where low <= rho <= high, else 0. The tokens stay in the denominator.

    Source: IcePop; verl `rollout_is_threshold` "0.5_5.0".
    """

    low: float = 0.5
    high: float = 5.0
    cap: float = float("inf")

    def __post_init__(self) -> None:
        _choice("level", self.level, LEVELS)
        if not 0.0 <= self.low <= self.high:
            raise ValueError(f"low {self.low} and high {self.high} must rise from 0")

    def cut(self, ratios: Doubles) -> Doubles:
        """What becomes of the ratios."""
        low, high = self.low * (1.0 - ROUNDING), self.high * (1.0 + ROUNDING)
        return np.where((ratios >= low) & (ratios <= high), ratios, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Tokens or whole sequences leave the loss where a divergence of the two engines is out of bounds; no weight.

    measure: k1 = -log rho, k2 = log^2 rho / 2, k3 = rho - 1 - log rho. over: token, or its seq_sum, seq_mean, seq_max
    over the action tokens. k1 is bounded on both sides, by `low` and `high` on exp(k1), that is on rollout / train:
    bounds that are no inverses of each other act on the inverse of rho. k2 and k3 have `high` alone, on the measure.
    Source: verl `compute_rollout_rejection_mask`; seq_mean k1 0.999_1.001 is its geometric preset.
    """

    corrects: ClassVar[bool] = True
    over: str = "seq_mean"
    measure: str = "k1"
    low: float = 0.999
    high: float = 1.001

    def __post_init__(self) -> None:
        _choice("over", self.over, ("seq_max", "seq_mean", "seq_sum", "token"))
        _choice("measure", self.measure, ("k1", "k2", "k3"))
        if self.high <= 0.0 or (self.measure == "k1" and not 0.0 < self.low <= self.high):
            raise ValueError(f"low {self.low} and high {self.high} must rise from above 0")

    def divergence(self, batch: Batch) -> Doubles:
        """f64[T] at the level that `over` names; 0 off the action tokens."""
        gap, mask = log_rho(batch), batch.action_mask
        k = {"k1": -gap, "k2": gap**2 / 2.0, "k3": np.exp(gap) - 1.0 - gap}[self.measure] * mask
        if self.over == "token":
            return k
        if self.over == "seq_max":
            top = np.full(batch.samples, -np.inf)
            np.maximum.at(top, batch.sample_of_token[mask], k[mask])
            rows = np.where(np.isfinite(top), top, 0.0)
        else:
            rows = per_sample(batch, k)
            if self.over == "seq_mean":
                rows = rows / np.maximum(per_sample(batch, mask.astype(np.float64)), 1.0)
        return np.where(mask, rows[batch.sample_of_token], 0.0)

    def weights(self, batch: Batch) -> tuple[Doubles, Bools]:
        """(ones f64[T], tokens within the bounds bool[T])"""
        k = self.divergence(batch)
        low, high = (np.log(self.low), np.log(self.high)) if self.measure == "k1" else (-np.inf, self.high)
        keep = (k >= low) & (k <= high)
        return np.ones(batch.tokens), keep | ~batch.action_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class OPSM:
    """A sequence with a negative advantage leaves the loss where mean(rollout - old) over its tokens exceeds delta.

    It needs advantages, so that it stands here and not among the filters. Taken at the weights that the update starts
    from; with several minibatches TRL takes it at the present ones.
    Source: off-policy sequence masking of DeepSeek-V3.2, arXiv 2512.02556; TRL `get_off_policy_mask`.
    """

    corrects: ClassVar[bool] = False
    delta: float = 0.5

    def weights(self, batch: Batch) -> tuple[Doubles, Bools]:
        """(ones f64[T], tokens of the sequences that stay bool[T])"""
        if batch.advantages is None:
            raise ValueError("opsm needs the batch's advantages")
        mask = batch.action_mask
        sizes = np.maximum(per_sample(batch, mask.astype(np.float64)), 1.0)
        drift = per_sample(batch, -log_rho(batch) * mask) / sizes
        sign = per_sample(batch, np.where(mask, batch.advantages, 0.0))
        keep = (sign >= 0.0) | (drift <= self.delta)
        return np.ones(batch.tokens), keep[batch.sample_of_token] | ~mask
