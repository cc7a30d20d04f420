"""Reward shaping: named components that the trainer adds, from lengths or stated confidence."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from agenthub.trainers.types import Batch, Doubles

__all__ = ["RLCR", "SoftOverlong"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftOverlong:
    """0 up to max_length - cache sampled tokens, then down in a straight line to -1 at max_length, and -1 beyond.

    Source: DAPO, arXiv 2503.14476, eq. 13; TRL `get_soft_overlong_punishment`.
    """

    max_length: int = 256
    cache: int = 64
    """Sampled tokens; 0 leaves the step alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.cache <= self.max_length:
            raise ValueError(f"cache {self.cache} must be in 0 to max_length {self.max_length}")

    def penalty(self, length: float) -> float:
        """Of a trajectory with so many sampled tokens."""
        free = self.max_length - self.cache
        if length <= free:
            return 0.0
        return -1.0 if length >= self.max_length else (free - length) / self.cache

    def component(self, batch: Batch) -> Doubles:
        """f64[N]"""
        lengths = np.bincount(batch.trajectory_of_token[batch.action_mask], minlength=batch.trajectories)
        return np.array([self.penalty(float(length)) for length in lengths])


@dataclass(frozen=True, slots=True, kw_only=True)
class RLCR:
    """1[correct] - (q - 1[correct])^2, q the confidence that the last turn states; what comes on top of the outcome.

    `form: code` is the released sum 0.5 format + 0.5 accuracy + 0.5 (1 - (accuracy - q)^2), 0 where the format fails.
    The format is a confidence within 0 to 1 that can be read.
    Source: RLCR, arXiv 2507.16806; damanimehul/RLCR, reward_fns.py.
    """

    form: str = "paper"
    """paper, code"""
    pattern: str = r"<confidence>\s*([0-9.]+)\s*</confidence>"

    def __post_init__(self) -> None:
        if self.form not in ("code", "paper"):
            raise ValueError(f"form is {self.form!r}; expected one of code, paper")
        if re.compile(self.pattern).groups < 1:
            raise ValueError(f"pattern {self.pattern!r} has no group that holds the confidence")

    def reward(self, correct: float, confidence: float, *, formatted: bool = True) -> float:
        """The whole reward of one answer."""
        brier = (correct - confidence) ** 2
        if self.form == "paper":
            return correct - brier
        return 0.5 + 0.5 * correct + 0.5 * (1.0 - brier) if formatted else 0.0

    def confidence(self, text: str) -> float | None:
        """The last one stated; None where there is none within 0 to 1."""
        found = re.findall(self.pattern, text)
        try:
            q = float(found[-1]) if found else None
        except ValueError:
            return None
        return q if q is not None and 0.0 <= q <= 1.0 else None

    def component(self, batch: Batch) -> Doubles:
        """f64[N]: an answer without a stated confidence is taken as sure of itself (paper) or gets 0 in all (code)."""
        out = np.zeros(batch.trajectories)
        for n, last in enumerate(batch.last_turn.tolist()):
            q = self.confidence(batch.turns[last].text) if last >= 0 else None
            correct = float(batch.outcomes[n])
            out[n] = self.reward(correct, 1.0 if q is None else q, formatted=q is not None) - correct
        return out
