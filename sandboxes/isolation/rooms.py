"""Rooms: boxes with nobody in them yet. Namespaces, mounts, limits and a process 1, made ahead by csrc/boxinit.c.

A room holds nothing of any episode, so a stock of them waits for whatever comes next: a new box or a copy of a live
one. Part of a mold; standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from agenthub.sandboxes.isolation import syscalls as sys_
from agenthub.sandboxes.isolation.boxinit import caps_of
from agenthub.sandboxes.isolation.cgroups import Group, Parent

__all__ = ["FOLDERS", "OURS", "Room", "Rooms"]

FOLDERS = (10, 11)
"""Descriptors of the workspace and of /tmp in every process 1."""
OURS = 2
"""Tasks of a box that are not its program's: process 1 and the twin."""
_READY_S = 10.0
_COPY_S = 10.0
_KINDS = 4
"""Sets of limits that rooms are kept of."""


@dataclass(slots=True)
class Room:
    """One empty box."""

    group: Group
    limits: dict[str, Any]
    uid: int
    init: int
    pidfd: int
    word: int
    """What process 1 says of itself: `R`, or the step that failed."""
    tasks: list[int]
    """Files through which a process moves itself into the box's groups."""
    out: int
    err: int
    inside: tuple[int, int]
    """The box's ends of its output."""
    closed: bool = False

    def ready(self, patience_s: float = _READY_S) -> None:
        """Wait until somebody can move in. Raises OSError."""
        if self.word < 0:
            return
        waiting = select.poll()
        waiting.register(self.word, select.POLLIN)
        if not waiting.poll(patience_s * 1000):
            raise OSError("a box was not ready in time")
        said = os.read(self.word, 256)
        os.close(self.word)
        self.word = -1
        if said != b"R":
            raise OSError(said.decode(errors="replace") or "a box's first process ended")

    def settled(self) -> None:
        """Somebody moved in and has what it needs of this process."""
        for descriptor in (*self.tasks, *self.inside, self.out, self.err):
            os.close(descriptor)
        self.tasks, self.inside, self.out, self.err = [], (-1, -1), -1, -1

    def folders(self) -> list[int]:
        """Descriptors of its workspace and its /tmp; the caller closes them. Raises OSError."""
        return [sys_.pidfd_getfd(self.pidfd, number) for number in FOLDERS]

    def kill(self) -> None:
        """Begin to end an empty room."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def destroy(self) -> None:
        """End an empty room and wait for it."""
        if self.closed:
            return
        self.closed = True
        self.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.init, 0)
        for descriptor in (*self.tasks, *self.inside, self.out, self.err, self.word, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        deadline = time.monotonic() + 0.5
        while not self.group.remove() and time.monotonic() < deadline:
            time.sleep(0.001)


@dataclass(slots=True)
class Rooms:
    """The stock of one mold."""

    library: ctypes.CDLL
    program: int
    """Descriptor of the static program."""
    filter: int
    """Descriptor of a file with the filter."""
    parent: Parent
    prefix: str
    first_uid: int
    uids: int
    stock: int
    """How many rooms of the limits that were asked for last wait."""
    priority: int
    """Nice value of the boxes."""
    _count: int = 0
    _waiting: dict[str, deque[Room]] = field(default_factory=dict)
    """By limits; those that were asked for last are last."""
    _limits: dict[str, Any] | None = None

    def take(self, limits: dict[str, Any], count: int = 1) -> list[Room]:
        """Rooms of these limits, ready. Raises OSError; nothing is left of them then."""
        key = repr(limits)
        waiting = self._waiting[key] = self._waiting.pop(key, deque())
        self._limits = limits
        if len(self._waiting) > _KINDS:
            _destroy_all(self._waiting.pop(next(iter(self._waiting))))
        taken = [waiting.popleft() for _ in range(min(count, len(waiting)))]
        try:
            while len(taken) < count:
                taken.append(self._make(limits))
            # One box asked for in a hurry is seldom the last: the next room is made while this one is waited for. Not
            # so with copies: the box that they are made of is stopped meanwhile.
            if not waiting and count == 1:
                waiting.append(self._make(limits))
            for room in taken:
                room.ready()
        except OSError:
            for room in taken:
                room.destroy()
            raise
        return taken

    @property
    def low(self) -> bool:
        """True where `fill` has something to do."""
        return self._limits is not None and len(self._waiting[repr(self._limits)]) < self.stock

    def fill(self) -> None:
        """Begin one more room. Raises OSError."""
        if self._limits is not None and self.low:
            self._waiting[repr(self._limits)].append(self._make(self._limits))

    def close(self) -> None:
        """End every room that waits."""
        _destroy_all([room for waiting in self._waiting.values() for room in waiting])
        self._waiting.clear()
        self._limits = None

    def copy_files(self, source: Room, rooms: Sequence[Room]) -> None:
        """Copy workspace and /tmp of one box into others, each by a process in the other's groups. Raises OSError."""
        folders = source.folders()
        running: list[tuple[int, int]] = []
        try:
            if not any(_holds(folder) for folder in folders):
                return
            for room in rooms:
                running.append(self._begin_copy(folders, room))
            deadline = time.monotonic() + _COPY_S
            while running:
                pid, word = running.pop()
                _finish_copy(pid, word, deadline)
        finally:
            for pid, word in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(word)
            for folder in folders:
                os.close(folder)

    def _begin_copy(self, folders: Sequence[int], room: Room) -> tuple[int, int]:
        there = room.folders()
        word, inside = os.pipe2(os.O_CLOEXEC)
        try:
            # Charged to the box, but not slowed by its share of the processor: the mold waits for it.
            groups = room.tasks[: len(room.tasks) - room.group.late]
            given = [inside, folders[0], there[0], folders[1], there[1], *groups]
            words = ["boxinit", str(self.priority), "copy", str(room.uid), str(len(groups))]
            return self._spawn(words, given, new_process_space=False), word
        except OSError:
            os.close(word)
            raise
        finally:
            for descriptor in (inside, *there):
                os.close(descriptor)

    def _make(self, limits: dict[str, Any]) -> Room:
        self._count += 1
        uid = self.first_uid + 1 + self._count % self.uids
        group = self.parent.box(f"{self.prefix}b{self._count}")
        group.make(caps_of(limits, OURS))
        held: list[int] = []
        try:
            tasks = group.tasks()
            held += tasks
            word, inside = os.pipe2(os.O_CLOEXEC)
            out, out_inside = os.pipe2(os.O_CLOEXEC)
            err, err_inside = os.pipe2(os.O_CLOEXEC)
            held += [word, inside, out, out_inside, err, err_inside]
            options = f"size={limits['disk_mb']}m,nr_inodes={limits['files']},mode=0700,uid={uid},gid={uid}"
            words = ["boxinit", str(self.priority), "init", options, str(self.first_uid), str(len(tasks))]
            init = self._spawn(words, [inside, self.filter, *tasks], new_process_space=True)
        except OSError:
            for descriptor in held:
                os.close(descriptor)
            group.remove()
            raise
        os.close(inside)
        pidfd = os.pidfd_open(init)
        return Room(group, dict(limits), uid, init, pidfd, word, tasks, out, err, (out_inside, err_inside))

    def _spawn(self, words: list[str], given: Sequence[int], *, new_process_space: bool) -> int:
        texts = (ctypes.c_char_p * (len(words) + 1))(*(word.encode() for word in words), None)
        numbers = (ctypes.c_int * len(given))(*given)
        pid: int = self.library.twin_spawn(self.program, texts, numbers, len(given), int(new_process_space))
        if pid < 0:
            raise OSError(self.library.twin_error().decode())
        return pid


def _destroy_all(rooms: Collection[Room]) -> None:
    """All begin to end before the first is waited for."""
    for room in rooms:
        room.kill()
    for room in rooms:
        room.destroy()


def _holds(folder: int) -> bool:
    """True where there is anything in a folder."""
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def _finish_copy(pid: int, word: int, deadline: float) -> None:
    """Wait for one copying process. Raises OSError with what it said."""
    waiting = select.poll()
    waiting.register(word, select.POLLIN)
    if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
        os.kill(pid, signal.SIGKILL)
    said = os.read(word, 256)
    os.close(word)
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(said.decode(errors="replace") or "the files could not be copied: no memory for them")
