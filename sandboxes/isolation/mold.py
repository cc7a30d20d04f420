"""A mold: an interpreter that has imported an image, sits in that image's root, and is forked for every box.

It answers one hub over a SOCK_SEQPACKET channel, watches the boxes it made through pidfds, removes their groups when
they end and writes the last line of their status pipes. It never runs a box's code. Standard library only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import messages, rootfs, seccomp
from agenthub.sandboxes.isolation import syscalls as sys_
from agenthub.sandboxes.isolation.boxinit import INHERITED, Birth, become_init, caps_of, limit_all
from agenthub.sandboxes.isolation.cgroups import Group, Parent
from agenthub.sandboxes.isolation.images import Image

__all__ = ["FIRST_UID", "Mold", "MoldSpec"]

FIRST_UID = 0x70000000
"""First user id that no known allocator hands out; each box gets one of the 60,000 from its supervisor's slot on."""
_UIDS = 60_000
_SLOTS = 4_000
_INSIDE_UID = 1000
_RETRY_S = 0.005
_GIVE_UP_S = 2.0


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


@dataclass(slots=True)
class _Kept:
    """A box that this mold looks after."""

    group: Group
    pidfd: int
    status: int
    usage: dict[str, float]
    """Read when its last process has ended; empty before."""
    give_up: float = 0.0
    """When the hub is told of the end even though the group is still there (monotonic seconds)."""


class Mold:
    """The warm interpreter of one image; `serve` runs until the hub or the supervisor is gone."""

    def __init__(self, spec: MoldSpec, channel: socket.socket) -> None:
        self._spec, self._channel = spec, channel
        self._kept: dict[int, _Kept] = {}
        self._dying: list[_Kept] = []
        self._count = 0
        self._next: Group | None = None
        self._fresh = False
        self._filter = seccomp.build()

    def prepare(self) -> None:
        """Import the image, enter its root, and freeze the heap for sharing."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        sys_.unshare(sys_.CLONE_NEWNS)
        for name in self._spec.image.imports:
            importlib.import_module(name)
        module, function = self._spec.image.resident.split(":")
        self._resident = getattr(importlib.import_module(module), function)
        paths = rootfs.library_paths()
        # A virtual environment stays outside; the interpreter in the box is the one beneath it.
        sys.executable = os.path.realpath(sys.executable)
        sys.prefix, sys.exec_prefix = sys.base_prefix, sys.base_exec_prefix
        rootfs.enter(paths, self._spec.mounts, rootless=self._spec.rootless)
        self._home = os.open(f"{rootfs.OLD_ROOT}/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        rootfs.leave_host()
        sys.path[:] = [path for path in sys.path if os.path.exists(path)]
        sys_.capability_drop(bounding=True)
        self._renew()
        limit_all()
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self) -> None:
        """Answer spawn requests and look after boxes; returns when the hub or the supervisor is gone."""
        events = select.epoll()
        self._events = events
        for descriptor in (self._channel.fileno(), self._spec.life):
            events.register(descriptor, select.EPOLLIN)
        while True:
            for descriptor, _ in events.poll(_RETRY_S if self._dying else -1):
                if descriptor == self._spec.life:
                    return
                if descriptor == self._channel.fileno():
                    if not self._request():
                        return
                else:
                    self._ended(descriptor)
            self._dying = [kept for kept in self._dying if not self._finish(kept)]

    def stop(self, patience_s: float = 1.0) -> None:
        """Kill every box and finish it, within the patience."""
        deadline = time.monotonic() + patience_s
        for kept in self._kept.values():
            kept.group.thaw()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(kept.pidfd, signal.SIGKILL)
        while (self._kept or self._dying) and time.monotonic() < deadline:
            for descriptor, _ in self._events.poll(_RETRY_S):
                if descriptor in self._kept:
                    self._ended(descriptor)
            self._dying = [kept for kept in self._dying if not self._finish(kept)]

    def _request(self) -> bool:
        try:
            message, descriptors = messages.receive(self._channel)
        except OSError:
            return False
        if message is None or len(descriptors) != 2:
            return False
        control, status = descriptors
        try:
            self._spawn(message, control, status)
        except OSError as error:
            # Nobody but the hub reads this pipe, so the text reaches it even where no process could be made.
            _write_line(status, {"error": f"cannot start a box: {error}"})
            os.close(status)
        finally:
            os.close(control)
        return True

    def _spawn(self, message: dict[str, Any], control: int, status: int) -> None:
        self._renew()
        group = self._next or self._group(message["limits"])
        self._next = None
        first = FIRST_UID + (self._spec.slot % _SLOTS) * (_UIDS + 1)
        birth = Birth(
            name=group.name,
            limits=message["limits"],
            argv=tuple(message["argv"]),
            env=message["env"],
            group=group,
            cgroup_memory="memory" in self._spec.parent.controllers,
            control=control,
            status=status,
            life=self._spec.life,
            uid=None if self._spec.rootless else first + 1 + self._count % _UIDS,
            init_uid=first,
            filter=self._filter,
            resident=self._resident,
        )
        # Children are born in a new process namespace; this process must go home before it can ask for the next one.
        sys_.setns(self._home, sys_.CLONE_NEWPID)
        sys_.unshare(sys_.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            become_init(birth)
        pidfd = os.pidfd_open(pid)
        self._kept[pidfd] = _Kept(group, pidfd, status, {})
        self._events.register(pidfd, select.EPOLLIN)
        # The box keeps the namespaces that it was born in; the next one's, and its group, are made while the hub is
        # already at work with this one. Where that fails, the next request meets the error and reports it.
        self._fresh = False
        with contextlib.suppress(OSError):
            self._renew()
            self._next = self._group(message["limits"])

    def _renew(self) -> None:
        """See that the next box is born in namespaces of its own."""
        if not self._fresh:
            sys_.unshare(INHERITED)
            self._fresh = True

    def _group(self, limits: dict[str, Any]) -> Group:
        self._count += 1
        group = self._spec.parent.box(f"m{self._spec.slot % _SLOTS}b{self._count}")
        group.make(caps_of(limits))
        return group

    def _ended(self, pidfd: int) -> None:
        kept = self._kept.pop(pidfd)
        self._events.unregister(pidfd)
        os.close(pidfd)
        kept.usage = kept.group.usage()
        kept.give_up = time.monotonic() + _GIVE_UP_S
        self._dying.append(kept)

    def _finish(self, kept: _Kept) -> bool:
        """Remove the group, which may hold the last process for a moment longer, and tell the hub of the end."""
        if not kept.group.remove() and time.monotonic() < kept.give_up:
            return False
        _write_line(kept.status, {"usage": kept.usage})
        os.close(kept.status)
        return True


def _write_line(descriptor: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, json.dumps(message).encode() + b"\n")


def _map_self() -> None:
    """Become the only user of a new user namespace."""
    uid, gid = os.getuid(), os.getgid()
    sys_.unshare(sys_.CLONE_NEWUSER)
    texts = {"setgroups": "deny", "uid_map": f"{_INSIDE_UID} {uid} 1", "gid_map": f"{_INSIDE_UID} {gid} 1"}
    for name, text in texts.items():
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def run(spec: MoldSpec, channel: socket.socket) -> NoReturn:
    """The life of a mold process: says `ready` or why not on its channel, serves, and exits.

    The mold is process 1 of a namespace that holds all its boxes, so that nothing can outlive it: not even a SIGKILL
    of the mold or the supervisor leaves a process behind.
    """
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        try:
            if spec.rootless:
                _map_self()
            sys_.unshare(sys_.CLONE_NEWPID)
            pid = os.fork()
            if pid:
                channel.close()
                os.waitpid(pid, 0)
                os._exit(0)
            sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
            mold = Mold(spec, channel)
            mold.prepare()
        except (OSError, ImportError) as error:
            messages.send(channel, {"error": f"cannot make the image: {error}"})
            os._exit(1)
        messages.send(channel, {"ready": True})
        mold.serve()
        mold.stop()
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)
