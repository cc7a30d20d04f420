"""What a group grows into: the protocol between the collector and a rollout strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from agenthub.records import Generation, Trajectory, Turn
from agenthub.rollout.types import Play, Start

__all__ = ["Growth", "Roots", "Strategy"]


class Growth(Protocol):
    """One group while it is played. It lives as long as one `collect`, so that nothing of it need be saved."""

    def more(self, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        """What begins now that everything begun before has ended; nothing ends the group.

        Args:
            ended: by member, all that were played; a branch that the hub refused is missing.
        """

    def copies(self, member: int, turns: Sequence[Turn], generation: Generation) -> Sequence[int]:
        """Members to be forked from the state before a turn that has been sampled and not played; () for none.

        Asked once for each turn of each member, but for the first one of a copy, whose state has been forked already.
        Copies share `turns` with the member and go on by themselves.
        """


class Strategy(Protocol):
    """Makes the growth of each group."""

    def planned(self, play: Play) -> Play:
        """The play with the limits and the help that it gets."""

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""


class Roots:
    """Every member starts at the root, and none is forked: the growth, and the strategy, of those that want no more."""

    def __init__(self, play: Play | None = None) -> None:
        self._left = play.count if play else 0

    def planned(self, play: Play) -> Play:
        """As it is."""
        return play

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return Roots(play)

    def more(self, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        """All of them, once."""
        count, self._left = self._left, 0
        return [Start(member=member) for member in range(count)]

    def copies(self, member: int, turns: Sequence[Turn], generation: Generation) -> Sequence[int]:
        """None."""
        return ()
