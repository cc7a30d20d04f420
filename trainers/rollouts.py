"""Rollout strategies: how many turns, which prefix, how many roots, where to branch; pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["AEPO", "ARPO", "Fixed", "Pope", "ScalingInter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """The suite's own number of turns; every member starts at the root and none branches."""

    def horizon(self, update: int) -> int | None:
        """Most turns of an episode of an update, from 1; None leaves it to the suite."""
        return None

    def roots(self, k: int, root_entropy: float, tool_entropy: float) -> int:
        """Of `k` episodes of a task how many start at the root; the others are forked."""
        return k

    def branches(self, root_entropy: float, entropy: float, consecutive: int) -> bool:
        """Fork the episode here, where the mean entropy of the last turn is `entropy`, nats?"""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingInter(Fixed):
    """At most rounds[min((update - 1) // updates_per_stage, last)] turns; a function of the update alone.

    Source: ScalingInter-RL in AgentGym-RL, arXiv 2509.08755; its StepRoundsScheduler jumps a stage on resuming.
    """

    rounds: tuple[int, ...] = (5, 8, 10)
    updates_per_stage: int = 100

    def __post_init__(self) -> None:
        if not self.rounds or min(self.rounds) < 1 or self.updates_per_stage < 1:
            raise ValueError(
                f"rounds {list(self.rounds)} and updates_per_stage {self.updates_per_stage} must be 1 or more"
            )

    def horizon(self, update: int) -> int:
        """Turns"""
        return self.rounds[min((update - 1) // self.updates_per_stage, len(self.rounds) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pope(Fixed):
    """A task that nothing has solved gets the first `fraction` of its oracle solution in the prompt, out of the loss.

    Unguided copies of it stay in the mix. Source: POPE, arXiv 2601.18779; no code, the fraction is assumed.
    """

    fraction: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise ValueError(f"fraction is {self.fraction}; expected 0 to 1")

    def guided(self, pass_rate: float) -> bool:
        """The task needs help."""
        return pass_rate <= 0.0

    def prefix(self, oracle_tokens: int, pass_rate: float) -> int:
        """Tokens of the oracle's solution that stand in the prompt."""
        # A product that is whole but for rounding counts as whole.
        return math.floor(self.fraction * oracle_tokens + 1e-9) if self.guided(pass_rate) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ARPO(Fixed):
    """Branch where alpha + beta (entropy - root entropy) > tau.

    Source: ARPO, arXiv 2507.19849.
    """

    alpha: float = 0.5
    beta: float = 0.2
    tau: float = 0.5
    initial: float = 0.5
    """Share of a group that starts at the root."""

    def probability(self, root_entropy: float, entropy: float) -> float:
        """Not held within 0 to 1: it is compared, not drawn from."""
        return self.alpha + self.beta * (entropy - root_entropy)

    def roots(self, k: int, root_entropy: float, tool_entropy: float) -> int:
        """Roots"""
        return max(1, math.floor(self.initial * k + 0.5))

    def branches(self, root_entropy: float, entropy: float, consecutive: int) -> bool:
        """Fork here?"""
        return self.probability(root_entropy, entropy) > self.tau


@dataclass(frozen=True, slots=True, kw_only=True)
class AEPO(ARPO):
    """k sigmoid(balance (root entropy - mean tool entropy)) roots, the rest branches; a run of branches is damped.

    P = (alpha + beta dH)(1 - min(1, penalty l)), l the branches taken in a row.
    Source: AEPO, arXiv 2510.14545; `balance`, the linear damping and the rounding are assumed.
    """

    balance: float = 1.0
    penalty: float = 0.25

    def roots_exact(self, k: int, root_entropy: float, tool_entropy: float) -> float:
        """Before rounding."""
        return k / (1.0 + math.exp(-self.balance * (root_entropy - tool_entropy)))

    def roots(self, k: int, root_entropy: float, tool_entropy: float) -> int:
        """Roots"""
        return math.floor(self.roots_exact(k, root_entropy, tool_entropy) + 0.5)

    def damped(self, probability: float, consecutive: int) -> float:
        """After so many branches in a row."""
        return probability * (1.0 - min(1.0, self.penalty * consecutive))

    def branches(self, root_entropy: float, entropy: float, consecutive: int) -> bool:
        """Fork here?"""
        return self.damped(self.probability(root_entropy, entropy), consecutive) > self.tau
