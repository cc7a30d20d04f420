"""Every exception that agenthub raises, in one tree.

    AgenthubError
    +-- UserError            what was given cannot be used; the message says what, where, and what would do
    |   +-- UnknownName      a name that no registry, suite or tool table has; carries the nearest one
    |   +-- ConfigError      a YAML file or a setting is wrong; starts with file:line
    |   +-- WireError        a request the hub refuses; has a code and an HTTP status
    |   +-- ForkRefused      an episode or a sandbox that cannot be copied soundly; says why
    +-- BoxLost              a box ended by its own doing (limit, signal, exit): the model's fault
    +-- HostFault            our side failed (spawn, engine, disk, broker): an infrastructure fault
    +-- TaskBroken           the task itself cannot be played or graded: an environment fault
    +-- HubUnreachable       the client could not get an answer from the hub in its retry budget

A program that fails in a sandbox is an observation, never an exception. A failed episode is data (`records.Stop`,
`records.Outcome`). Anything that is not in this tree is a bug and may raise.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

__all__ = [
    "NO_ROOM",
    "AgenthubError",
    "BoxLost",
    "ConfigError",
    "ForkRefused",
    "HostFault",
    "HubUnreachable",
    "TaskBroken",
    "UnknownName",
    "UserError",
    "WireError",
    "nearest",
]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where a disk or a quota is full: nobody's bug."""


class AgenthubError(Exception):
    """The root of the tree."""


class UserError(AgenthubError):
    """What was given cannot be used."""


class UnknownName(UserError):
    """A name that is not known, with the nearest one that is."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        place = f"{where}: " if where else ""
        super().__init__(f"{place}no {kind} named {name!r}{nearest(name, self.known)}")


class ConfigError(UserError):
    """A YAML file or a setting that cannot be used; the message starts with its place."""

    def __init__(self, place: str, message: str) -> None:
        self.place, self.message = place, message
        super().__init__(f"{place}: {message}" if place else message)


class WireError(UserError):
    """A request that the hub refuses: `code` is stable, `status` is the HTTP status, `detail` is JSON."""

    def __init__(self, code: str, status: int, message: str, detail: object = None) -> None:
        self.code, self.status, self.message, self.detail = code, status, message, detail
        super().__init__(message)


class ForkRefused(UserError):
    """A copy that would not be sound, or cannot be made; nothing has changed."""


class BoxLost(AgenthubError):
    """A box ended by its own doing; the episode stops with `Stop.SANDBOX_LOST` and outcome `model_fault`."""


class HostFault(AgenthubError):
    """Our side failed, and there is evidence for it; outcome `infra_fault`, reward None, the member is played again."""


class TaskBroken(AgenthubError):
    """The task cannot be played or graded as written; outcome `env_fault`, reward None, the task is quarantined."""


class HubUnreachable(AgenthubError):
    """The hub gave no answer within the client's retry budget."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest known names, or all of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not names:
        return "; none is known"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"; expected one of {shown}"
