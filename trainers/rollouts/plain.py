"""Strategies that play every member from the root, and what the others build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from agenthub.records import Generation, Trajectory, Turn
from agenthub.rollout import Growth, Play, Roots, Start

__all__ = ["Fixed", "Growing", "ScalingInter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """The suite's own number of turns; every member starts at the root and none branches.

    Source: what every method does that names no other.
    """

    forks: ClassVar[bool] = False
    """It forks episodes, so that a suite's sandboxes must be able to be copied or replayed."""
    oracles: ClassVar[bool] = False
    """It needs the suite's own solutions, which the hub shows to nobody."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of `plugins.NEEDS`."""

    def horizon(self, update: int) -> int | None:
        """Most turns of an episode of an update, from 1; None leaves it to the suite."""
        return None

    def roots(self, k: int, root_entropy: float, tool_entropy: float) -> int:
        """Of `k` episodes of a task how many start at the root; the others are forked."""
        return k

    def branches(self, root_entropy: float, entropy: float, consecutive: int, draw: float | None = None) -> bool:
        """Fork the episode before a turn whose first tokens have the mean entropy `entropy`, nats?"""
        return False

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return Roots(play)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingInter(Fixed):
    """At most rounds[min((update - 1) // updates_per_stage, last)] turns; a function of the update alone.

    A task that allows fewer turns keeps its own number. With `staleness` the update is the one that a group was begun
    for.
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


class Growing:
    """A group's growth: gives out members' numbers and counts how many are played."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.waves = 0
        """Waves begun."""
        self.given = 0
        """Members that are played or have ended."""
        self._next = 0

    def take(self, count: int) -> range:
        """So many new members."""
        first = self._next
        self._next += max(0, count)
        self.given += max(0, count)
        return range(first, self._next)

    def from_root(self, count: int) -> list[Start]:
        """So many new members from the root."""
        return [Start(member=member) for member in self.take(count)]

    def more(self, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        """As `Growth.more`: `wave` says what begins."""
        self.waves += 1
        self.given = len(ended)
        return self.wave(self.waves, ended)

    def wave(self, number: int, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        """What begins with a wave, from 1: all members from the root, and those that were refused once more.

        A branch that the hub refused leaves its group a member short; a root takes its place.
        """
        return self.from_root(self.play.count - len(ended))

    def copies(self, member: int, turns: Sequence[Turn], generation: Generation) -> Sequence[int]:
        """None."""
        return ()
