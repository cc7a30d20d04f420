"""Strategies that look at a group's first attempts and add to them: guided, backtracked, or refined ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agenthub.records import Ints, Trajectory
from agenthub.rollout import Critique as Criticised
from agenthub.rollout import Growth, Play, Start
from agenthub.trainers.batch import solved
from agenthub.trainers.rollouts.plain import Fixed, Growing
from agenthub.trainers.types import EXECUTED, REFINED

__all__ = ["Critique", "Pope", "ThorBacktrack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pope(Fixed):
    """A task that nothing has solved gets the first `fraction` of its oracle solution in the prompt, out of the loss.

    The first `unguided` share of a group is played without help; where none of it is solved, the others begin with the
    oracle's tokens, whole turns of which are played as they stand. A task without a solution is played without help.
    Source: POPE, arXiv 2601.18779; no code, the fraction is assumed, and "nothing has solved" is asked of the group's
    own unguided members (128 samples there).
    """

    oracles: ClassVar[bool] = True
    fraction: float = 0.3
    unguided: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("fraction", self.fraction), ("unguided", self.unguided)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}; expected 0 to 1")

    def guided(self, pass_rate: float) -> bool:
        """The task needs help."""
        return pass_rate <= 0.0

    def prefix(self, oracle_tokens: int, pass_rate: float) -> int:
        """Tokens of the oracle's solution that stand in the prompt."""
        # A product that is whole but for rounding counts as whole.
        return math.floor(self.fraction * oracle_tokens + 1e-9) if self.guided(pass_rate) else 0

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return _Guided(self, play)


class _Guided(Growing):
    def __init__(self, strategy: Pope, play: Play) -> None:
        super().__init__(play)
        self._strategy = strategy

    def wave(self, number: int, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        alone = min(self.play.count, max(1, math.ceil(self._strategy.unguided * self.play.count - 1e-9)))
        if number == 1:
            return self.from_root(alone)
        rate = float(np.mean([_solved(one) for one in ended.values()])) if ended else 0.0
        sizes = [int(ids.size) for ids in self.play.oracle]
        guide = _first(self.play.oracle, self._strategy.prefix(sum(sizes), rate))
        return [Start(member=member, guide=guide) for member in self.take(self.play.count - len(ended))]


def _first(turns: Sequence[Ints], count: int) -> tuple[Ints, ...]:
    """The first `count` tokens of some turns, turn by turn."""
    found: list[Ints] = []
    for ids in turns:
        if count <= 0:
            break
        found.append(ids[:count])
        count -= int(ids.size)
    return tuple(found)


def _solved(trajectory: Trajectory) -> bool:
    return trajectory.reward is not None and solved(trajectory)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThorBacktrack(Fixed):
    """Of trajectories with a failed call, the last failed turn is sampled again `suffixes` times from the state before.

    A suffix ends after its one turn; its reward is whether its calls executed, and it belongs to a group of its own.
    The turns before, and the tokens of the failed turn that are kept, are prompt. `group_size` counts the trajectories
    that are played to their end.
    Source: THOR, arXiv 2509.13761; JingMog/THOR, vllm_rollout_spmd.py, which cuts back 100 or 200 tokens before the
    last code block and samples 16 suffixes.
    """

    forks: ClassVar[bool] = True
    suffixes: int = 4
    failures: int = 2
    """Trajectories of a group that are backtracked; the first ones."""
    back: int = 0
    """Tokens of the failed turn that are sampled again; 0 is all of them."""

    def __post_init__(self) -> None:
        if min(self.suffixes, self.failures) < 1 or self.back < 0:
            raise ValueError("suffixes and failures must be 1 or more, back not negative")

    def failed_turn(self, trajectory: Trajectory) -> int | None:
        """The last turn with a call that failed; None where every call executed."""
        failed = [turn.index for turn in trajectory.turns if any(it.failed and it.call_id for it in turn.observations)]
        return failed[-1] if failed else None

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return _Backtracked(self, play)


class _Backtracked(Growing):
    def __init__(self, strategy: ThorBacktrack, play: Play) -> None:
        super().__init__(play)
        self._strategy = strategy

    def wave(self, number: int, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        if number == 1:
            return self.from_root(self.play.count)
        if number > 2:
            return ()
        places = [(member, self._strategy.failed_turn(one)) for member, one in sorted(ended.items())]
        chosen = [(member, turn) for member, turn in places if turn is not None][: self._strategy.failures]
        return [
            Start(member=own, parent=member, turn=turn, guide=self._kept(ended[member], turn), component=EXECUTED)
            for member, turn in chosen
            for own in self.take(self._strategy.suffixes)
        ]

    def _kept(self, parent: Trajectory, turn: int) -> tuple[Ints, ...]:
        """The tokens of the failed turn that stay."""
        generation, back = parent.turns[turn].generation, self._strategy.back
        if generation is None or not back or generation.ids.size <= back:
            return ()
        return (generation.ids[: generation.ids.size - back],)


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique(Fixed):
    """`refined` members of a group try again what others failed at: they see the attempt and what was wrong with it.

    Their tokens are recorded after the task's own prompt, as those of the policy `refined`: what is learned is to
    answer so without the critique. Where too few members failed, the rest starts at the root.
    Source: Critique-GRPO, arXiv 2506.03106, 7 samples and 1 refinement; here the critique is the fixed `text`, its
    indicative form, not a model's.
    """

    refined: int = 1
    text: str = "The answer is wrong. Try again."
    """What is said after the attempt; {reason} is what the verifier said in one line."""

    def __post_init__(self) -> None:
        if self.refined < 1:
            raise ValueError(f"refined is {self.refined}; expected 1 or more")
        try:
            self.text.format(reason="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"text {self.text!r} may name {{reason}} alone: {error}") from error

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return _Refined(self, play)


class _Refined(Growing):
    def __init__(self, strategy: Critique, play: Play) -> None:
        super().__init__(play)
        self._strategy = strategy

    def wave(self, number: int, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        if number == 1:
            return self.from_root(max(1, self.play.count - self._strategy.refined))
        left = self.play.count - len(ended)
        failed = [member for member, one in sorted(ended.items()) if self._usable(one)][: max(0, left)]
        starts = [
            Start(member=own, critique=Criticised(of=member, text=self._said(ended[member]), policy=REFINED))
            for member, own in zip(failed, self.take(len(failed)), strict=True)
        ]
        return [*starts, *self.from_root(left - len(starts))]

    def _usable(self, attempt: Trajectory) -> bool:
        """It failed by the policy's own doing, with room for another one after it."""
        return attempt.reward is not None and not solved(attempt) and bool(attempt.turns)

    def _said(self, attempt: Trajectory) -> str:
        return self._strategy.text.format(reason=attempt.reason)
