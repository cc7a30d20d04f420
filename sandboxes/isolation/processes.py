"""The processes of a box as the machine sees them: nothing in the box is asked, so that nothing in it can lie."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Process", "processes"]

_BUSY = (b"R", b"D")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a box."""

    argv: tuple[str, ...]
    """Its arguments, which it may have changed; empty where it has ended meanwhile."""
    program: str
    """Path of the program that it runs; empty where it cannot be told."""
    busy: bool
    """One of its threads runs, is about to, or waits for a disk."""


def processes(groups: Mapping[str, str], box: str, init: int) -> tuple[Process, ...]:
    """The processes of a box: those of its control group, or below its first one where there is none.

    Args:
        groups: paths of its parent's groups by controller.
        init: a pidfd of its first process, which is left out.
    """
    first = _pid(init)
    return tuple(_process(pid) for pid in sorted(_members(groups, box) or _below(first)) if pid != first)


def _members(groups: Mapping[str, str], box: str) -> set[int]:
    for parent in groups.values():
        with contextlib.suppress(OSError, ValueError):
            return set(map(int, _read(os.path.join(parent, box, "cgroup.procs")).split()))
    return set()


def _below(first: int) -> set[int]:
    waiting, found = [first] if first > 0 else [], set[int]()
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                waiting += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def _process(pid: int) -> Process:
    argv, program, busy = list[bytes](), "", False
    # It may have ended meanwhile.
    with contextlib.suppress(OSError, IndexError):
        argv = _read(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")
        program = os.readlink(f"/proc/{pid}/exe")
        for task in os.listdir(f"/proc/{pid}/task"):
            busy = busy or _read(f"/proc/{pid}/task/{task}/stat").rpartition(b")")[2].split()[0] in _BUSY
    return Process(argv=tuple(part.decode("utf-8", "replace") for part in argv if part), program=program, busy=busy)


def _pid(descriptor: int) -> int:
    for line in _read(f"/proc/self/fdinfo/{descriptor}").splitlines():
        if line.startswith(b"Pid:"):
            return int(line.split()[1])
    return -1


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
