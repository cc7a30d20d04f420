"""How a mold makes boxes: by forking itself (everywhere), or out of a stopped seed and in rooms made ahead (faster, and
live boxes can be copied). Part of a mold; standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Protocol

from agenthub.sandboxes.isolation import syscalls as sys_
from agenthub.sandboxes.isolation.boxinit import INHERITED, Birth, become_init, caps_of
from agenthub.sandboxes.isolation.cgroups import Group, Parent
from agenthub.sandboxes.isolation.kept import Kept, write_line
from agenthub.sandboxes.isolation.rooms import OURS, Room, Rooms
from agenthub.sandboxes.isolation.twins import Made, Order, Twins, Unsound, destroy

__all__ = ["Births", "ForkBirths", "TwinBirths", "Users"]

_HELLO = struct.Struct(">I")
Message = dict[str, Any]


class Users:
    """User ids of one mold's boxes: `first` for every process 1, one of the next ones for each worker."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count


class Births(Protocol):
    """One way of making boxes."""

    no_fork: str
    """Why a live box cannot be copied; empty where it can."""

    def spawn(self, message: Message, control: int, status: int) -> Kept:
        """A new box. Both descriptors are the caller's. Raises OSError."""

    def copy(self, source: Kept, message: Message, pairs: Sequence[tuple[int, int]]) -> Iterator[Kept]:
        """Copies of a live box, one for each pair of control and status descriptors, each running as it is given.

        Raises:
            Unsound, OSError: there can be none, or no more.
        """

    def prepare(self) -> bool:
        """Do a little of what the next box needs; False where all is ready."""

    def close(self) -> None:
        """End what was made ahead."""


class ForkBirths:
    """Each box is forked from the mold, sets itself up, and forks its worker."""

    def __init__(
        self,
        parent: Parent,
        users: Users | None,
        *,
        filter: bytes,
        life: int,
        priority: int,
        prefix: str,
        home: int,
        resident: Callable[[int], NoReturn],
        no_fork: str,
    ) -> None:
        self.no_fork = no_fork
        self._parent, self._users, self._filter, self._life = parent, users, filter, life
        self._priority, self._prefix, self._home, self._resident = priority, prefix, home, resident
        self._count = 0
        self._next: tuple[Message, Group] | None = None
        self._limits: Message | None = None
        self._fresh = False

    def spawn(self, message: Message, control: int, status: int) -> Kept:
        """As Births says."""
        self._renew()
        limits = message["limits"]
        group = self._next[1] if self._next is not None else self._group(limits)
        self._next = None
        users = self._users
        birth = Birth(
            name=group.name,
            limits=limits,
            argv=tuple(message["argv"]),
            env=message["env"],
            group=group,
            cgroup_memory="memory" in self._parent.controllers,
            control=control,
            status=status,
            life=self._life,
            priority=self._priority,
            uid=None if users is None else users.first + 1 + self._count % users.count,
            init_uid=0 if users is None else users.first,
            filter=self._filter,
            resident=self._resident,
        )
        # Children are born in a new process namespace; this process must go home before it can ask for the next one.
        sys_.setns(self._home, sys_.CLONE_NEWPID)
        sys_.unshare(sys_.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            become_init(birth)
        # The box keeps the namespaces that it was born in; the next one's, and its group, are made while the hub is
        # already at work with this one. Where that fails, the next request meets the error and reports it.
        self._fresh, self._limits = False, limits
        return Kept(group, pid, os.pidfd_open(pid), status)

    def copy(self, source: Kept, message: Message, pairs: Sequence[tuple[int, int]]) -> Iterator[Kept]:
        """Always refused."""
        raise Unsound(self.no_fork)

    def prepare(self) -> bool:
        """Namespaces and group of the next box."""
        if self._limits is None or (self._fresh and self._next is not None):
            return False
        self._renew()
        self._next = (self._limits, self._group(self._limits))
        return False

    def close(self) -> None:
        """Nothing waits but a group, which goes with its parent."""

    def _renew(self) -> None:
        """See that the next box is born in namespaces of its own."""
        if not self._fresh:
            sys_.unshare(INHERITED)
            self._fresh = True

    def _group(self, limits: Message) -> Group:
        self._count += 1
        group = self._parent.box(f"{self._prefix}b{self._count}")
        group.make(caps_of(limits))
        return group


class TwinBirths:
    """Each box is a room made ahead, into which a copy of a stopped process moves."""

    no_fork = ""

    def __init__(self, rooms: Rooms, twins: Twins, *, cgroup_memory: bool) -> None:
        self._rooms, self._twins, self._cgroup_memory = rooms, twins, cgroup_memory

    def spawn(self, message: Message, control: int, status: int) -> Kept:
        """As Births says."""
        room = self._rooms.take(message["limits"])[0]
        made = Made(0, 0)
        try:
            made = self._twins.make(self._order(room, control), {"argv": message["argv"], "env": message["env"]})
            kept = self._admit(room, made, control, status)
        except OSError:
            destroy(made.twin, made.worker)
            room.destroy()
            raise
        if message["argv"]:
            # Another program has a memory of its own: nothing could be copied through this twin.
            destroy(made.twin)
            kept.twin = 0
        return kept

    def copy(self, source: Kept, message: Message, pairs: Sequence[tuple[int, int]]) -> Iterator[Kept]:
        """As Births says."""
        if not source.twin or source.room is None or not source.worker:
            raise Unsound("the box runs a program of its own")
        rooms = self._rooms.take(source.room.limits, len(pairs))
        here = 0
        try:
            with self._twins.stopped(source.worker, source.twin):
                self._check(source, source.room)
                self._rooms.copy_files(source.room, rooms)
                for room, pair in zip(rooms, pairs, strict=True):
                    kept = self._copied(source.twin, room, pair)
                    here += 1
                    yield kept
        finally:
            for room in rooms[here:]:
                room.destroy()

    def _copied(self, twin: int, room: Room, pair: tuple[int, int]) -> Kept:
        made = self._twins.copy(twin, self._order(room, pair[0]))
        try:
            return self._admit(room, made, *pair)
        except OSError:
            destroy(made.twin, made.worker)
            raise

    def prepare(self) -> bool:
        """One more room."""
        self._rooms.fill()
        return self._rooms.low

    def close(self) -> None:
        """End the rooms that wait."""
        self._rooms.close()

    def _check(self, source: Kept, room: Room) -> None:
        folders = room.folders()
        try:
            self._twins.check(source.init, source.worker, folders)
        finally:
            for folder in folders:
                os.close(folder)

    def _order(self, room: Room, control: int) -> Order:
        return Order(
            space=room.pidfd,
            control=control,
            out=room.inside[0],
            err=room.inside[1],
            groups=room.tasks,
            late=room.group.late,
            uid=room.uid,
            limits=room.limits,
            cgroup_memory=self._cgroup_memory,
        )

    def _admit(self, room: Room, made: Made, control: int, status: int) -> Kept:
        """Tell the hub of a box, then let its worker run. Raises OSError where the hub could not be told."""
        worker_fd = os.pidfd_open(made.worker)
        try:
            _tell(room, control, worker_fd)
        except OSError:
            os.close(worker_fd)
            raise
        kept = Kept(room.group, room.init, room.pidfd, status, made.worker, worker_fd, made.twin, room)
        try:
            self._twins.release(made)
        except OSError as error:
            # The hub has the box; it may have ended it already, and else learns that it is our fault.
            if self._twins.alive(room.init):
                write_line(status, {"lost": str(error)})
            kept.end()
            with contextlib.suppress(ProcessLookupError):
                os.kill(made.worker, signal.SIGKILL)
        room.settled()
        return kept


def _tell(room: Room, control: int, worker_fd: int) -> None:
    """The first frame on a box's socket, from the mold; the worker has not run yet and cannot forge it."""
    folders = room.folders()
    try:
        data = json.dumps({"box": room.group.name, "ours": OURS}).encode()
        with socket.socket(fileno=os.dup(control)) as channel:
            socket.send_fds(
                channel, [_HELLO.pack(len(data)) + data], [room.out, room.err, folders[0], room.pidfd, worker_fd]
            )
    finally:
        for folder in folders:
            os.close(folder)
