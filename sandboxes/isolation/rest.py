"""What a turn leaves running is stopped until the next turn: frozen in the box's control group, else killed.

A box that runs nothing but its resident program, waiting for the hub, is left alone; after a while it is frozen too, so
that whatever the count of its tasks does not show (a timer, a patched resident program) costs no processor time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Rest"]

_MANY = 1 << 30
_IDLE_S = 0.5
_ROUNDS = 50
"""How often the processes of a box without a freezer are listed and killed before it is given up."""


class Rest:
    """Stops and wakes the tasks of one box.

    Args:
        groups: paths of its parent's groups by controller.
        alone: tasks of a box in which nothing else runs: ours, and the resident program's only thread.
    """

    def __init__(self, groups: Mapping[str, str], box: str, *, init: int, worker: int, alone: int = 2) -> None:
        self._loop = asyncio.get_running_loop()
        self._switch = _switch(groups, box)
        self._count: int | None = None
        if "pids" in groups:
            with contextlib.suppress(OSError):
                # Kept open: it is read after every turn.
                self._count = os.open(os.path.join(groups["pids"], box, "pids.current"), os.O_RDONLY | os.O_CLOEXEC)
        self._init, self._worker, self._alone = init, worker, alone
        self._frozen = self._resting = False
        self._ours: set[int] | None = None
        """Processes that were there before the first turn, where there is no freezer and they must be told apart."""
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> str:
        """A turn has ended. Returns what the program should be told of, or nothing."""
        if self._switch is None:
            return _end_others(self._init, self._worker, self._ours)
        self._resting, self._since = True, self._loop.time()
        if self._tasks() > self._alone:
            self._freeze()
        elif self._timer is None:
            self._timer = self._loop.call_later(_IDLE_S, self._on_idle)
        return ""

    @property
    def freezes(self) -> bool:
        """True where tasks can be frozen."""
        return self._switch is not None

    def found(self) -> None:
        """It was left by another process, frozen or not: it is frozen, and known to be."""
        self._resting = True
        self._freeze()

    def end(self) -> None:
        """A turn begins, or the box ends: a frozen process of version 1 could not even be killed."""
        self._resting = False
        if self._switch is None and self._ours is None:
            self._ours = _below(_pid(self._init))
        if self._frozen and self._switch is not None:
            self._frozen = False
            _write(self._switch[0], self._switch[2])

    def close(self) -> None:
        """The box ends."""
        self.end()
        self._switch, self._ours = None, set()
        if self._count is not None:
            os.close(self._count)
            self._count = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_idle(self) -> None:
        """One timer for any number of turns: it starts again where a turn came in between."""
        self._timer = None
        left = self._since + _IDLE_S - self._loop.time()
        if self._resting and not self._frozen:
            if left > 0:
                self._timer = self._loop.call_later(left, self._on_idle)
            else:
                self._freeze()

    def _freeze(self) -> None:
        if self._switch is not None:
            self._frozen = True
            _write(self._switch[0], self._switch[1])

    def _tasks(self) -> int:
        """Tasks in the box; more than there can be where nobody counts them."""
        try:
            return int(os.pread(self._count, 32, 0)) if self._count is not None else _MANY
        except OSError:
            return _MANY


def _switch(groups: Mapping[str, str], box: str) -> tuple[str, bytes, bytes] | None:
    """The file that freezes the box, and what stops and wakes it; None where there is none."""
    if "freezer" in groups:
        return os.path.join(groups["freezer"], box, "freezer.state"), b"FROZEN", b"THAWED"
    for parent in groups.values():
        path = os.path.join(parent, box, "cgroup.freeze")
        if os.path.exists(path):
            return path, b"1", b"0"
    return None


def _write(path: str, value: bytes) -> None:
    # The group is gone where the box has just ended.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value)
        finally:
            os.close(descriptor)


def _end_others(init: int, worker: int, ours: set[int] | None) -> str:
    """Kill every process of a box but ours, its first and its resident program, which two pidfds name; what is left."""
    first, resident = _pid(init), _pid(worker)
    if first <= 0 or resident <= 0:
        return ""
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        others = _below(first) - {resident} - (ours or set())
        if not others:
            break
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= others
    threads = _threads(resident) - 1
    told = [f"{len(killed)} processes were ended"] if killed else []
    told += [f"{threads} threads are still running"] if threads > 0 else []
    return f"left at the end of the turn: {', '.join(told)}\n" if told else ""


def _pid(descriptor: int) -> int:
    """The process behind a pidfd; -1 where it has ended."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1


def _below(pid: int) -> set[int]:
    """Every process below one that has not ended. A box's first process adopts its orphans, so nobody escapes this."""
    found: set[int] = set()
    waiting = [pid] if pid > 0 else []
    while waiting:
        here = waiting.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{here}/task"):
                children = Path(f"/proc/{here}/task/{task}/children").read_text(encoding="ascii")
                waiting += map(int, children.split())
                found |= {child for child in map(int, children.split()) if _runs(child)}
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0
