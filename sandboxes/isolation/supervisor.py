"""The supervisor: a process of its own, without threads, that starts molds for a hub and keeps what leads to its boxes.

It never touches a box. A hub that stops in order takes everything with it. One that dies otherwise may be followed,
within the grace, by another that knows the socket: it is handed the molds and the boxes as they are. Where none comes,
and where there is no grace, the supervisor ends its molds, which kill their boxes; when it is killed itself, the boxes'
first processes see their life pipe end. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import cgroups, messages, mold
from agenthub.sandboxes.isolation.images import IMAGES
from agenthub.sandboxes.isolation.keeper import Keeper
from agenthub.sandboxes.isolation.native import Native

__all__ = ["main"]

_PATIENCE_S = 2.0
_HAND_OVER_S = 10.0
"""A hub that takes longer to be given what is kept is not one of ours."""
_CREDENTIALS = struct.Struct("3i")


class Supervisor:
    """Molds by number, for the hub at the other end of a socket."""

    def __init__(self, channel: socket.socket, hub: int, entrance: socket.socket | None, grace_s: float) -> None:
        """
        Args:
            hub: pidfd of the hub's process.
            entrance: where the next hub comes in; None where there is to be none.
        """
        self._channel: socket.socket | None = channel
        self._hub, self._entrance, self._grace_s = hub, entrance, grace_s
        self._until: float | None = None
        """While there is no hub: when it is no longer waited for (monotonic seconds)."""
        self._molds: dict[int, tuple[int, int]] = {}
        """Process id and number, by pidfd."""
        self._keeper = Keeper()
        self._stopped = False
        self._started = 0
        self._life, self._hold = os.pipe2(os.O_CLOEXEC)
        self._rootless = os.geteuid() != 0
        hierarchies = cgroups.find()
        cgroups.sweep(hierarchies)
        self._parent = cgroups.Parent.create(hierarchies)

    def serve(self) -> None:
        """Run until the hub is gone and none follows it, or a signal asks us to stop."""
        stopping, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._events = select.epoll()
        self._events.register(stopping, select.EPOLLIN)
        self._listen_to_hub()
        if self._entrance is not None:
            self._entrance.listen(4)
            self._events.register(self._entrance.fileno(), select.EPOLLIN)
        assert self._channel is not None  # of the hub that started us
        messages.send(self._channel, self._facts())
        while not self._stopped:
            left_s = -1.0 if self._until is None else max(0.0, self._until - time.monotonic())
            # One at a time: what it changes may make the next one mean something else.
            for descriptor, _ in self._events.poll(left_s, 1):
                if descriptor == stopping:
                    return
                self._on_event(descriptor)
            if self._until is not None and time.monotonic() >= self._until:
                return

    def _on_event(self, descriptor: int) -> None:
        if self._entrance is not None and descriptor == self._entrance.fileno():
            self._enter(self._entrance)
        elif descriptor in self._molds:
            self._reap(descriptor)
        elif self._channel is not None and descriptor in (self._hub, self._channel.fileno()):
            if descriptor == self._hub:
                # What it asked for before it died is in the socket still.
                self._channel.setblocking(False)
            going = self._request()
            while going and descriptor == self._hub:
                going = self._request()
            if not going:
                self._leave()

    def _facts(self) -> dict[str, Any]:
        limited = {"controllers": sorted(self._parent.controllers), "rootless": self._rootless}
        return {"ready": True, "pid": os.getpid(), "groups": self._parent.paths()} | limited

    def _listen_to_hub(self) -> None:
        assert self._channel is not None  # it has just come
        for descriptor in (self._channel.fileno(), self._hub):
            self._events.register(descriptor, select.EPOLLIN)

    def _leave(self) -> None:
        """The hub is gone: wait for the next, or stop."""
        if self._channel is None:
            return
        for descriptor in (self._channel.fileno(), self._hub):
            self._events.unregister(descriptor)
        self._channel.close()
        os.close(self._hub)
        self._channel, self._hub = None, -1
        if self._entrance is None or self._grace_s <= 0:
            self._stopped = True
        self._until = time.monotonic() + self._grace_s

    def _enter(self, entrance: socket.socket) -> None:
        """A hub that follows a dead one comes in."""
        channel, _ = entrance.accept()
        pid, uid, _ = _CREDENTIALS.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if self._channel is not None and select.select([self._hub], [], [], 0)[0]:
            self._on_event(self._hub)
        try:
            if uid != os.geteuid() or self._channel is not None or self._stopped:
                channel.close()
                return
            hub = os.pidfd_open(pid)
        except OSError:
            channel.close()
            return
        self._channel, self._hub, self._until = channel, hub, None
        self._listen_to_hub()
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_HAND_OVER_S), 0))
        try:
            self._keeper.hand_over(channel, self._facts())
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        except OSError:
            self._leave()

    def stop(self) -> None:
        """End every mold and remove every group."""
        if self._entrance is not None:
            self._entrance.close()
        self._keeper.close()
        os.close(self._hold)
        deadline = time.monotonic() + _PATIENCE_S
        while self._molds and time.monotonic() < deadline:
            for descriptor, _ in self._events.poll(0.05):
                if descriptor in self._molds:
                    self._reap(descriptor)
        for descriptor, (pid, _) in list(self._molds.items()):
            os.kill(pid, signal.SIGKILL)
            self._reap(descriptor)
        self._parent.remove()

    def _request(self) -> bool:
        """One message of the hub; False where it is gone, or says that it stops."""
        assert self._channel is not None  # it has just said something
        try:
            message, descriptors = messages.receive(self._channel)
        except OSError:
            return False
        if message is None:
            return False
        match message:
            case {"stop": _}:
                self._stopped = True
                return False
            case {"keep": facts}:
                self._keeper.box(facts, descriptors)
            case {"forget": name}:
                self._keeper.forget(name)
            case {"mold_ready": number, "no_fork": no_fork}:
                self._keeper.ready(number, no_fork)
            case {"mold_gone": number}:
                self._keeper.mold_gone(number)
            case _:
                self._make(self._channel, message)
        return True

    def _make(self, hub: socket.socket, message: dict[str, Any]) -> None:
        """Answer a request for a mold."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            try:
                self._start(message, ours)
                if self._entrance is not None:
                    self._keeper.mold(self._started, theirs.fileno(), message["image"], message["mounts"])
                reply = {"id": message["id"], "mold": self._started}
                messages.send(hub, reply, [theirs.fileno()])
            except OSError as error:
                messages.send(hub, {"id": message["id"], "error": f"cannot start a mold: {error}"})

    def _start(self, message: dict[str, Any], channel: socket.socket) -> None:
        self._started += 1
        spec = mold.MoldSpec(
            image=IMAGES[message["image"]],
            mounts=tuple(Mount(**row) for row in message["mounts"]),
            parent=self._parent,
            life=self._life,
            rootless=self._rootless,
            slot=os.getpid() + 97 * (self._started - 1),
            priority=os.getpriority(os.PRIO_PROCESS, 0),
            native=Native(**message["native"]) if message["native"] else None,
            no_native=message["no_native"],
        )
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_mold(spec, channel, supervisor)
        descriptor = os.pidfd_open(pid)
        self._molds[descriptor] = (pid, self._started)
        self._events.register(descriptor, select.EPOLLIN)

    def _become_mold(self, spec: mold.MoldSpec, channel: socket.socket, supervisor: int) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        self._events.close()
        # A box must not be held by its neighbours' mold, nor a mold by another.
        self._keeper.close()
        for channel_of_ours in (self._channel, self._entrance):
            if channel_of_ours is not None:
                channel_of_ours.close()
        for descriptor in (self._hold, self._hub, *self._molds):
            os.close(descriptor)
        mold.run(spec, channel, supervisor)

    def _reap(self, descriptor: int) -> None:
        pid, number = self._molds.pop(descriptor)
        self._keeper.mold_gone(number)
        self._events.unregister(descriptor)
        os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def main(channel_fd: int, hub_pid: int, entrance_fd: int = -1, grace_s: float = 0.0) -> None:
    """Entry point.

    Args:
        channel_fd: a SOCK_SEQPACKET socket to the hub, which is process `hub_pid`.
        entrance_fd: a bound SOCK_SEQPACKET socket where the hub that follows it comes in; below 0 for none.
        grace_s: seconds that it is waited for.
    """
    channel = socket.socket(fileno=channel_fd)
    channel.setblocking(True)
    entrance = socket.socket(fileno=entrance_fd) if entrance_fd >= 0 else None
    if entrance is not None:
        entrance.setblocking(True)
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        hub = os.pidfd_open(hub_pid)
    except ProcessLookupError:
        sys.exit(0)
    supervisor = Supervisor(channel, hub, entrance, grace_s)
    try:
        supervisor.serve()
    finally:
        supervisor.stop()
