"""Credit in games of unlike roles: a reward is compared with what the role is used to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from agenthub.trainers.credit.group import on_tokens
from agenthub.trainers.types import Batch, Doubles

__all__ = ["RoleBaseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleBaseline:
    """A_i = R_i - b of the trajectory's role; b <- decay b + (1 - decay) mean reward of the role, after each update.

    The role is `role` of the task's metadata; tasks without one share a baseline. No group is needed, and the baseline
    is that of updates before, so it does not depend on what it is compared with.
    Source: Vision-Zero, arXiv 2509.25541, where spies win more often than the others at first.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    decay: float = 0.9
    _means: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay is {self.decay}; expected 0 or more and less than 1")

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        usual = np.array([self._means.get(role, 0.0) for role in batch.roles])
        return on_tokens(batch, batch.rewards - usual)

    def observe(self, batch: Batch) -> None:
        """Move the baseline of each role that played."""
        counts = batch.trajectory_in_stats
        for role in sorted(set(batch.roles)):
            own = counts & np.array([name == role for name in batch.roles])
            if own.any():
                mean = float(batch.rewards[own].mean())
                self._means[role] = self.decay * self._means.get(role, 0.0) + (1.0 - self.decay) * mean

    def metrics(self, batch: Batch) -> Mapping[str, float]:
        """role_baseline_NAME: what each role of the batch was compared with."""
        return {f"role_baseline_{role or 'none'}": self._means.get(role, 0.0) for role in sorted(set(batch.roles))}

    def state_dict(self) -> dict[str, Any]:
        """The baselines by role."""
        return dict(self._means)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._means.clear()
        self._means.update({str(role): float(mean) for role, mean in state.items()})
