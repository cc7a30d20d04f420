"""Strategies that fork episodes while they are played: where entropy rises, or before every turn."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agenthub.records import Generation, Trajectory, Turn
from agenthub.rollout import Growth, Play, Start
from agenthub.trainers.rollouts.plain import Fixed, Growing

__all__ = ["AEPO", "ARPO", "TurnValues"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ARPO(Fixed):
    """Fork before a turn where alpha + beta (entropy - root entropy) > tau; `group_size` counts leaves.

    The entropy is the mean over the first `tokens` tokens that follow what a tool showed, the root's the same over the
    first turn. A share `initial` of the group starts at the root; what the branches do not use up starts there too.
    Source: ARPO, arXiv 2507.19849; each branch adds one leaf (its beam of 2). The paper compares with tau; its code,
    vllm_rollout_with_tools.py, takes the left side for a probability (clamp(random - beta dH) <= alpha).
    """

    forks: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"entropies"})
    alpha: float = 0.5
    beta: float = 0.2
    tau: float = 0.5
    initial: float = 0.5
    """Share of a group that starts at the root."""
    tokens: int = 20
    """Tokens of a turn whose entropies count."""
    rule: str = "threshold"
    """threshold: fork where the left side is above tau; draw: with that probability, and tau is not used."""

    def __post_init__(self) -> None:
        if self.rule not in ("draw", "threshold"):
            raise ValueError(f"rule is {self.rule!r}; expected one of draw, threshold")
        if not 0.0 <= self.initial <= 1.0 or self.tokens < 1:
            raise ValueError(f"initial {self.initial} must be in 0 to 1, tokens {self.tokens} 1 or more")

    def probability(self, root_entropy: float, entropy: float) -> float:
        """Not held within 0 to 1: it is compared, not drawn from."""
        return self.alpha + self.beta * (entropy - root_entropy)

    def roots(self, k: int, root_entropy: float, tool_entropy: float) -> int:
        """Roots"""
        return max(1, math.floor(self.initial * k + 0.5))

    def damped(self, probability: float, consecutive: int) -> float:
        """After so many branches in a row: the same."""
        return probability

    def branches(self, root_entropy: float, entropy: float, consecutive: int, draw: float | None = None) -> bool:
        """Fork here?

        Args:
            draw: from 0 to 1; None compares with tau.
        """
        value = self.damped(self.probability(root_entropy, entropy), consecutive)
        return value > self.tau if draw is None else draw <= value

    def entropy(self, generation: Generation | None) -> float | None:
        """Nats, of a turn's first tokens; None where the policy does not tell them or there are none."""
        told = None if generation is None else generation.entropies
        if told is None or not told.size:
            return None
        return float(told[: self.tokens].mean(dtype=np.float64))

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return _ByEntropy(self, play)


@dataclass(frozen=True, slots=True, kw_only=True)
class AEPO(ARPO):
    """k sigmoid(balance (root entropy - mean tool entropy)) roots, the rest branches; a run of branches is damped.

    P = (alpha + beta dH)(1 - min(1, penalty l)), l the branches taken in a row. The two entropies are those of one root
    that is played first, and counts.
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

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return _Probed(self, play)


class _ByEntropy(Growing):
    """Roots, branches while they last, then roots for what is left."""

    def __init__(self, strategy: ARPO, play: Play) -> None:
        super().__init__(play)
        self._strategy = strategy
        self._row: dict[int, int] = {}
        """By member, the branches that its last turns took in a row."""

    def wave(self, number: int, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        if number == 1:
            return self.from_root(min(self.play.count, self._strategy.roots(self.play.count, 0.0, 0.0)))
        return super().wave(number, ended)

    def copies(self, member: int, turns: Sequence[Turn], generation: Generation) -> Sequence[int]:
        if not turns or self.given >= self.play.count:
            return ()
        root, now = self._strategy.entropy(turns[0].generation), self._strategy.entropy(generation)
        taken = self._row.get(member, 0)
        draw = self._draw(member, len(turns)) if self._strategy.rule == "draw" else None
        if root is None or now is None or not self._strategy.branches(root, now, taken, draw):
            self._row[member] = 0
            return ()
        made = self.take(1)
        self._row[member] = taken + 1
        self._row |= dict.fromkeys(made, taken + 1)
        return made

    def _draw(self, member: int, turn: int) -> float:
        """A number of the group's own for each turn, so that a run that is played again forks where it did."""
        return float(np.random.default_rng([zlib.crc32(self.play.group.encode()), member, turn]).random())


class _Probed(_ByEntropy):
    """One root tells the entropies that say how many roots there are."""

    def wave(self, number: int, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        if number == 1:
            return self.from_root(1)
        if number == 2 and ended:
            root, tool = self._told(next(iter(ended.values())))
            wanted = self._strategy.roots(self.play.count, root, tool)
            # A branch needs a root that goes on: the probe has ended.
            return self.from_root(min(max(wanted, 2), self.play.count) - 1)
        return Growing.wave(self, number, ended)

    def copies(self, member: int, turns: Sequence[Turn], generation: Generation) -> Sequence[int]:
        return () if self.waves == 1 else super().copies(member, turns, generation)

    def _told(self, probe: Trajectory) -> tuple[float, float]:
        """(entropy of the first turn, mean of those after a tool); equal ones where there is nothing to compare."""
        told = [self._strategy.entropy(turn.generation) for turn in probe.turns]
        root = next((one for one in told[:1] if one is not None), 0.0)
        later = [one for one in told[1:] if one is not None]
        return root, float(np.mean(later)) if later else root


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnValues(Fixed):
    """Fork every root `copies` times before each turn but the first: the state's value is what the copies get.

    `group_size` counts roots; the copies come on top. Where to fork does not depend on what is sampled, so that the
    values are unbiased: a root of T turns has (T - 1) copies at each, up to `states` states.
    Source: VinePPO, arXiv 2410.01679, with forked episodes for re-sampled prefixes.
    """

    forks: ClassVar[bool] = True
    copies: int = 2
    states: int = 0
    """States forked of one root, the first ones; 0 is all of them."""

    def __post_init__(self) -> None:
        if self.copies < 1 or self.states < 0:
            raise ValueError(f"copies {self.copies} must be 1 or more, states {self.states} not negative")

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return _EveryTurn(self, play)


class _EveryTurn(Growing):
    def __init__(self, strategy: TurnValues, play: Play) -> None:
        super().__init__(play)
        self._strategy = strategy

    def wave(self, number: int, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        return self.from_root(self.play.count) if number == 1 else ()

    def copies(self, member: int, turns: Sequence[Turn], generation: Generation) -> Sequence[int]:
        states, place = self._strategy.states, len(turns)
        if member >= self.play.count or not turns or (states and place > states):
            return ()
        return self.take(self._strategy.copies)
