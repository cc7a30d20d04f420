"""The supervisor: a process of its own, without threads, that starts molds for one hub and outlives neither.

It never touches a box. When the hub goes (its socket ends or its process does), it ends its molds, which kill their
boxes; when it is killed itself, the boxes' first processes see their life pipe end. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import cgroups, messages, mold
from agenthub.sandboxes.isolation.images import IMAGES
from agenthub.sandboxes.isolation.native import Native

__all__ = ["main"]

_PATIENCE_S = 2.0


class Supervisor:
    """Molds by name, for the hub at the other end of a socket."""

    def __init__(self, channel: socket.socket, hub: int) -> None:
        self._channel, self._hub = channel, hub
        self._molds: dict[int, int] = {}
        """pid by pidfd."""
        self._started = 0
        self._life, self._hold = os.pipe2(os.O_CLOEXEC)
        self._rootless = os.geteuid() != 0
        hierarchies = cgroups.find()
        cgroups.sweep(hierarchies)
        self._parent = cgroups.Parent.create(hierarchies)

    def serve(self) -> None:
        """Run until the hub is gone or a signal asks us to stop."""
        stopping, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._events = select.epoll()
        for descriptor in (self._channel.fileno(), self._hub, stopping):
            self._events.register(descriptor, select.EPOLLIN)
        messages.send(
            self._channel,
            {"ready": True, "controllers": sorted(self._parent.controllers), "rootless": self._rootless}
            | {"groups": self._parent.paths()},
        )
        while True:
            for descriptor, _ in self._events.poll():
                if descriptor in (self._hub, stopping):
                    return
                if descriptor == self._channel.fileno():
                    if not self._request():
                        return
                else:
                    self._reap(descriptor)

    def stop(self) -> None:
        """End every mold and remove every group."""
        os.close(self._hold)
        deadline = time.monotonic() + _PATIENCE_S
        while self._molds and time.monotonic() < deadline:
            for descriptor, _ in self._events.poll(0.05):
                if descriptor in self._molds:
                    self._reap(descriptor)
        for descriptor, pid in list(self._molds.items()):
            os.kill(pid, signal.SIGKILL)
            self._reap(descriptor)
        self._parent.remove()

    def _request(self) -> bool:
        try:
            message, _ = messages.receive(self._channel)
        except OSError:
            return False
        if message is None:
            return False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            reply: dict[str, Any] = {"id": message["id"]}
            try:
                self._start(message, ours)
                messages.send(self._channel, reply, [theirs.fileno()])
            except OSError as error:
                messages.send(self._channel, reply | {"error": f"cannot start a mold: {error}"})
        return True

    def _start(self, message: dict[str, Any], channel: socket.socket) -> None:
        self._started += 1
        spec = mold.MoldSpec(
            image=IMAGES[message["image"]],
            mounts=tuple(Mount(**row) for row in message["mounts"]),
            parent=self._parent,
            life=self._life,
            rootless=self._rootless,
            slot=os.getpid() + 97 * (self._started - 1),
            native=Native(**message["native"]) if message["native"] else None,
            no_native=message["no_native"],
        )
        pid = os.fork()
        if pid == 0:
            self._become_mold(spec, channel)
        descriptor = os.pidfd_open(pid)
        self._molds[descriptor] = pid
        self._events.register(descriptor, select.EPOLLIN)

    def _become_mold(self, spec: mold.MoldSpec, channel: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        self._events.close()
        self._channel.close()
        for descriptor in (self._hold, self._hub, *self._molds):
            os.close(descriptor)
        mold.run(spec, channel)

    def _reap(self, descriptor: int) -> None:
        pid = self._molds.pop(descriptor)
        self._events.unregister(descriptor)
        os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def main(channel_fd: int, hub_pid: int) -> None:
    """Entry point: `channel_fd` is a SOCK_SEQPACKET socket to the hub, which is process `hub_pid`."""
    channel = socket.socket(fileno=channel_fd)
    channel.setblocking(True)
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        hub = os.pidfd_open(hub_pid)
    except ProcessLookupError:
        sys.exit(0)
    supervisor = Supervisor(channel, hub)
    try:
        supervisor.serve()
    finally:
        supervisor.stop()
