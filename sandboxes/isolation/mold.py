"""A mold: an interpreter that has imported an image, sits in that image's root, and is copied for every box.

It answers one hub over a SOCK_SEQPACKET channel, watches the boxes it made through pidfds, removes their groups when
they end and writes the last line of their status pipes. It never runs a box's code. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import messages, rootfs, seccomp
from agenthub.sandboxes.isolation import syscalls as sys_
from agenthub.sandboxes.isolation.births import Births, ForkBirths, TwinBirths, Users
from agenthub.sandboxes.isolation.boxinit import limit_all
from agenthub.sandboxes.isolation.cgroups import Parent
from agenthub.sandboxes.isolation.images import Image
from agenthub.sandboxes.isolation.kept import Kept, write_line
from agenthub.sandboxes.isolation.native import Native
from agenthub.sandboxes.isolation.rooms import Rooms
from agenthub.sandboxes.isolation.twins import Twins, Unsound, memory_file

__all__ = ["FIRST_UID", "Mold", "MoldSpec"]

FIRST_UID = 0x70000000
"""First user id that no known allocator hands out; each box gets one of the 60,000 from its supervisor's slot on."""
_UIDS = 60_000
_SLOTS = 4_000
_INSIDE_UID = 1000
_RETRY_S = 0.005
_QUIET_S = 0.001
"""How long nothing must have been asked for before the next box's parts are made."""
_STOCK = 8
_AHEAD = 10
"""By how much the mold's nice value is below its boxes', where it may be."""
_MOST_DESCRIPTORS = 240
_GUARD_MS = 3000
"""How long a mold has to end by itself after its supervisor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoldSpec:
    """What a supervisor tells a new mold."""

    image: Image
    mounts: tuple[Mount, ...]
    parent: Parent
    life: int
    """Read end of the pipe that ends with the supervisor."""
    rootless: bool
    slot: int
    """Number of this mold within all supervisors of the machine, for user ids."""
    priority: int
    """Nice value of the hub, which its boxes have as well."""
    native: Native | None
    """The C parts; None where there are none."""
    no_native: str
    """Why there are none."""


class Mold:
    """The warm interpreter of one image; `serve` runs until the hub or the supervisor is gone."""

    def __init__(self, spec: MoldSpec, channel: socket.socket) -> None:
        self._spec, self._channel = spec, channel
        self._boxes: dict[str, Kept] = {}
        self._dying: list[Kept] = []
        self._listening: dict[int, Callable[[], None]] = {}
        self._filter = seccomp.build()
        self._births: Births

    @property
    def no_fork(self) -> str:
        """Why live boxes of this mold cannot be copied; empty where they can."""
        return self._births.no_fork

    def prepare(self) -> None:
        """Import the image, enter its root, and freeze the heap for sharing."""
        sys_.unshare(sys_.CLONE_NEWNS)
        library, program, no_twins = self._load()
        for name in self._spec.image.imports:
            importlib.import_module(name)
        module, function = self._spec.image.resident.split(":")
        resident: Callable[[int], NoReturn] = getattr(importlib.import_module(module), function)
        paths = rootfs.library_paths()
        # A virtual environment stays outside; the interpreter in the box is the one beneath it.
        sys.executable = os.path.realpath(sys.executable)
        sys.prefix, sys.exec_prefix = sys.base_prefix, sys.base_exec_prefix
        rootfs.enter(paths, self._spec.mounts, rootless=self._spec.rootless)
        home = os.open(f"{rootfs.OLD_ROOT}/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        table = -1 if library is None else rootfs.hidden_process_table()
        rootfs.leave_host()
        sys.path[:] = [path for path in sys.path if os.path.exists(path)]
        limit_all()
        gc.collect()
        gc.freeze()
        gc.disable()
        first = FIRST_UID + (self._spec.slot % _SLOTS) * (_UIDS + 1)
        users = None if self._spec.rootless else Users(first, _UIDS)
        prefix = f"m{self._spec.slot % _SLOTS}"
        if library is not None and users is not None:
            try:
                self._births = self._twin_births(library, program, table, resident, users, prefix)
                return
            except OSError as error:
                no_twins = f"a process cannot be held and copied here: {error}"
        sys_.capability_drop(bounding=True)
        self._births = ForkBirths(
            self._spec.parent,
            users,
            filter=self._filter,
            life=self._spec.life,
            priority=self._spec.priority,
            prefix=prefix,
            home=home,
            resident=resident,
            no_fork=no_twins,
        )

    def _load(self) -> tuple[ctypes.CDLL | None, int, str]:
        """The C parts, while the host's files are in sight, or why they are of no use."""
        native = self._spec.native
        if native is None:
            return None, -1, self._spec.no_native
        if self._spec.rootless:
            return None, -1, "copies of live boxes need root"
        try:
            return Twins.load(native), memory_file(native.program), ""
        except OSError as error:
            return None, -1, f"the C parts cannot be loaded: {error}"

    def _twin_births(
        self,
        library: ctypes.CDLL,
        program: int,
        table: int,
        resident: Callable[[int], NoReturn],
        users: Users,
        prefix: str,
    ) -> TwinBirths:
        twins = Twins(library, self._filter, table, self._spec.priority)
        twins.plant(resident)
        filter = os.memfd_create("filter", os.MFD_CLOEXEC)
        os.write(filter, self._filter)
        spec = self._spec
        rooms = Rooms(library, program, filter, spec.parent, prefix, users.first, users.count, _STOCK, spec.priority)
        return TwinBirths(rooms, twins, cgroup_memory="memory" in self._spec.parent.controllers)

    def serve(self) -> None:
        """Answer spawn requests and look after boxes; returns when the hub or the supervisor is gone."""
        self._events = select.epoll()
        self._serving = True
        self._listen(self._channel.fileno(), self._request)
        self._listen(self._spec.life, self._supervisor_gone)
        idle_s = -1.0
        while self._serving:
            self._turn(_RETRY_S if self._dying else idle_s)
            idle_s = -1.0
            if self._serving and not self._asked:
                # Where it fails, the next request meets the error and reports it.
                with contextlib.suppress(OSError):
                    idle_s = _QUIET_S if self._births.prepare() else -1.0
            elif self._asked:
                idle_s = _QUIET_S

    def stop(self, patience_s: float = 1.0) -> None:
        """Kill every box and finish it, within the patience."""
        deadline = time.monotonic() + patience_s
        self._forget(self._channel.fileno())
        self._forget(self._spec.life)
        self._births.close()
        for kept in list(self._boxes.values()):
            if kept.worker:
                # Our side's doing, not the program's: the hub must know the difference.
                write_line(kept.status, {"lost": "the supervisor is gone"})
            kept.end()
        while (self._boxes or self._dying) and time.monotonic() < deadline:
            self._turn(_RETRY_S)

    def _turn(self, timeout_s: float) -> None:
        self._asked = False
        for descriptor, _ in self._events.poll(timeout_s):
            listener = self._listening.get(descriptor)
            if listener is not None:
                listener()
        self._dying = [kept for kept in self._dying if not kept.finish()]

    def _listen(self, descriptor: int, listener: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._events.register(descriptor, events)
        self._listening[descriptor] = listener

    def _forget(self, descriptor: int) -> None:
        if self._listening.pop(descriptor, None) is not None:
            self._events.unregister(descriptor)

    def _supervisor_gone(self) -> None:
        self._serving = False

    def _request(self) -> None:
        self._asked = True
        try:
            message, descriptors = messages.receive(self._channel, _MOST_DESCRIPTORS)
        except OSError:
            message, descriptors = None, []
        if message is None or len(descriptors) % 2:
            self._serving = False
            return
        pairs = list(zip(descriptors[0::2], descriptors[1::2], strict=True))
        waiting = iter(pairs)
        said: dict[str, str] = {}
        try:
            for kept in self._made(message, pairs):
                os.close(next(waiting)[0])
                self._keep(kept)
        except Unsound as error:
            said = {"refused": str(error)}
        except OSError as error:
            said = {"error": f"cannot start a box: {error}"}
        for control, status in waiting:
            # Nobody but the hub reads this pipe, so the text reaches it even where no process could be made.
            write_line(status, said)
            os.close(status)
            os.close(control)

    def _made(self, message: dict[str, Any], pairs: list[tuple[int, int]]) -> Iterator[Kept]:
        """The boxes that a message asks for. Raises OSError, Unsound."""
        if "copy" not in message:
            yield self._births.spawn(message, *pairs[0])
            return
        source = self._boxes.get(message["copy"])
        if source is None:
            raise OSError("the box has ended")
        yield from self._births.copy(source, message, pairs)

    def _keep(self, kept: Kept) -> None:
        self._boxes[kept.group.name] = kept
        self._listen(kept.pidfd, functools.partial(self._ended, kept))
        if kept.worker:
            self._listen(kept.worker_fd, functools.partial(self._worker_ended, kept))
            self._listen(kept.status, functools.partial(self._let_go, kept), 0)

    def _worker_ended(self, kept: Kept) -> None:
        """The box ends with its worker, and the hub is told how."""
        self._forget(kept.worker_fd)
        code = kept.reap_worker()
        if code is not None:
            write_line(kept.status, {"worker": code})
        kept.end()

    def _let_go(self, kept: Kept) -> None:
        """The hub has closed its end of the status pipe."""
        self._forget(kept.status)
        kept.end()

    def _ended(self, kept: Kept) -> None:
        self._forget(kept.pidfd)
        self._forget(kept.status)
        if kept.worker:
            self._forget(kept.worker_fd)
            kept.reap_worker()
        del self._boxes[kept.group.name]
        kept.ended()
        self._dying.append(kept)


def _map_self() -> None:
    """Become the only user of a new user namespace."""
    uid, gid = os.getuid(), os.getgid()
    sys_.unshare(sys_.CLONE_NEWUSER)
    texts = {"setgroups": "deny", "uid_map": f"{_INSIDE_UID} {uid} 1", "gid_map": f"{_INSIDE_UID} {gid} 1"}
    for name, text in texts.items():
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def run(spec: MoldSpec, channel: socket.socket, supervisor: int) -> NoReturn:
    """The life of a mold process: says `ready` or why not on its channel, serves, and exits.

    The mold is process 1 of a namespace that holds all its boxes, so that nothing can outlive it; its parent, which
    this process becomes, looks after it. Not even a SIGKILL of the mold or of the supervisor leaves a process behind.
    """
    with contextlib.suppress(PermissionError):
        # It ends boxes that take all there is, and every step of a copy is a switch to or from it.
        os.setpriority(os.PRIO_PROCESS, 0, max(-20, spec.priority - _AHEAD))
    try:
        try:
            if spec.rootless:
                _map_self()
            sys_.unshare(sys_.CLONE_NEWPID)
            pid = os.fork()
            if pid:
                channel.close()
                _guard(spec, pid, supervisor)
                os._exit(0)
            sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
            mold = Mold(spec, channel)
            mold.prepare()
        except (OSError, ImportError) as error:
            messages.send(channel, {"error": f"cannot make the image: {error}"})
            os._exit(1)
        messages.send(channel, {"ready": True, "no_fork": mold.no_fork})
        mold.serve()
        mold.stop()
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def _guard(spec: MoldSpec, pid: int, supervisor: int) -> None:
    """Wait for a mold to end. Where the supervisor was killed, nobody else is left to clear up: so that is done here.

    A box that is frozen cannot even be killed, and while a hub is awaited there may be no other process that thaws it.
    """
    mold = os.pidfd_open(pid)
    events = select.poll()
    for descriptor in (mold, spec.life):
        events.register(descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _ in events.poll()}
    if mold not in ready:
        events.unregister(spec.life)
        events.poll(_GUARD_MS)
    if os.getppid() != supervisor:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(mold, signal.SIGKILL)
        spec.parent.remove()
    elif mold not in ready:
        return  # the supervisor stops and looks after the rest
    os.waitpid(pid, 0)
