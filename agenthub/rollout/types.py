"""What a rollout is asked for, how a member begins, and what collecting cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agenthub.records import Ints

__all__ = ["CollectStats", "Critique", "Meter", "Play", "Start", "turn_seed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One group to collect: `count` members on one task, and what its strategy adds to them."""

    suite: str
    task: str
    count: int
    group: str
    update: int = 0
    """The update that it is played for, from 1; 0 for none."""
    max_turns: int | None = None
    """Most turns of its episodes; None is the task's own. More than the task's own is refused by the hub."""
    oracle: tuple[Ints, ...] = ()
    """Token ids of each turn of a solution, for strategies that give help; empty where none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    """An attempt is shown to the policy again with what was wrong about it, and another one follows."""

    of: int
    """The member whose attempt it is; it has ended."""
    text: str
    policy: str
    """Name under which the second attempt's tokens are recorded: they are off the policy's own distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How one member of a group begins; without anything, at the root with the task's own prompt."""

    member: int
    parent: int | None = None
    """The member that it is forked from; it was played at least as far as `turn`."""
    turn: int = 0
    """Its first turn of its own: it shares the parent's turns before."""
    guide: tuple[Ints, ...] = ()
    """Token ids that begin its first own turns: prompt, not sampled. A turn whose guide is a complete action is played
    as it stands."""
    critique: Critique | None = None
    component: str | None = None
    """It ends after its first own turn, whose one component of this name says whether its calls executed: 1 or 0."""


@dataclass(slots=True)
class CollectStats:
    """What one `collect` cost."""

    generate_s: float = 0.0
    """Wall seconds in which the policy sampled for any episode."""
    environment_s: float = 0.0
    """Wall seconds in which the hub opened, forked or stepped any; where episodes are not in lockstep, both at once."""
    tokens: int = 0
    """Sampled tokens; what a fork shares with its parent is counted once."""
    turns: int = 0
    replayed: int = 0
    """Members played again because our side had lost them."""
    refused: int = 0
    """Forks that the hub could not make soundly; the group goes without them."""

    def add(self, part: CollectStats) -> None:
        """Add what another `collect` cost."""
        self.generate_s += part.generate_s
        self.environment_s += part.environment_s
        self.tokens += part.tokens
        self.turns += part.turns
        self.replayed += part.replayed
        self.refused += part.refused


class Meter:
    """Wall seconds in which at least one of several pieces of work was under way; they may overlap."""

    def __init__(
        self,
        stats: CollectStats,
        name: Literal["generate_s", "environment_s"],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._stats, self._name, self._clock = stats, name, clock
        self._running, self._since = 0, 0.0

    def __enter__(self) -> None:
        if self._running == 0:
            self._since = self._clock()
        self._running += 1

    def __exit__(self, *error: object) -> None:
        self._running -= 1
        if self._running == 0:
            spent = self._clock() - self._since
            setattr(self._stats, self._name, getattr(self._stats, self._name) + spent)


def turn_seed(seed: int, group: str, member: int, turn: int) -> int:
    """The seed of one turn's sampling: the same whatever else is played beside it."""
    digest = hashlib.blake2b(f"{seed}/{group}/{member}/{turn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
