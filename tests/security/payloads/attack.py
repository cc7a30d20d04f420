"""One attack: a turn of an episode, what it must end with, and what the hub finds when it looks afterwards.

An outcome is `observed` (the turn ended with an observation) or `lost` (the box ended, by the model's doing); never a
fault of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from agenthub.sandbox import Sandbox

__all__ = ["CANARIES", "CANARIES_OF_DOCKER", "CANARIES_OF_THE_JAIL", "EITHER", "SYSCALL", "Attack", "attack"]

EITHER = ("observed", "lost")
CANARIES = ("REACHED", "OPENED", "WROTE", "GOT IT", "SENT")
"""Words that a payload prints where it got further than it may."""
CANARIES_OF_DOCKER = (*CANARIES, "MADE")
"""In gVisor a box may make what its own kernel has."""
CANARIES_OF_THE_JAIL = (*CANARIES_OF_DOCKER, "SEEN")
"""A container has an image of its own to look at."""
SYSCALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    result = libc.syscall(*map(ctypes.c_long, args))
    return result if result >= 0 else -ctypes.get_errno()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One named attack. `{port}` in the code is that of a listener on the host's loopback."""

    name: str
    code: str
    shows: str
    """Must stand in the observation of every isolation."""
    outcome: tuple[str, ...] = ("observed",)
    jail: str = ""
    """Must stand in the observation in the jail, whose answers are known to the letter."""
    jail_outcome: tuple[str, ...] = ()
    """The outcome in the jail, where it is narrower than elsewhere."""
    gvisor_outcome: tuple[str, ...] = ()
    """The outcome in gVisor, where a box that reaches its limit of memory ends as a whole."""
    timeout_s: float = 3.0
    before: Callable[[Sandbox], Awaitable[None]] | None = None
    """What the hub does before the turn."""
    during: Callable[[Sandbox], Coroutine[Any, Any, None]] | None = None
    """What the hub does while the turn runs."""
    after: Callable[[Sandbox, Sandbox], Awaitable[None]] | None = None
    """What the hub does after it, with the victim and a fresh sandbox beside it; raises where it finds harm."""


def attack(name: str, code: str, shows: str = "", **fields: Any) -> Attack:
    """An attack by its name, its code and what it must show."""
    return Attack(name=name, code=code, shows=shows, **fields)
