"""A box that a mold has been asked for: the hub's ends of its socket and status pipe until it tells of itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from dataclasses import dataclass

from agenthub.errors import ForkRefused, HostFault
from agenthub.sandboxes.isolation.ready import readable

__all__ = ["Expected", "Hello"]

_HELLO_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a new box tells of itself."""

    name: str
    descriptors: list[int]
    """Output, error output, workspace, and pidfds of process 1 and of the worker."""
    ours: int
    """Tasks of the box that are not its program's."""


class Expected:
    """One box in the making: call `sent`, then `hello`, then take `control` and `status`, or `drop` it."""

    def __init__(self, order: bytes = b"") -> None:
        self.control, self._inside = socket.socketpair()
        self.status, self._status_inside = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.control.setblocking(False)
        if order:
            # A socket takes more than an order is long.
            self.control.send(order)

    @property
    def given(self) -> list[int]:
        """The two descriptors that go to the mold."""
        return [self._inside.fileno(), self._status_inside]

    def sent(self) -> None:
        """The mold has its ends, or never gets them."""
        self._inside.close()
        os.close(self._status_inside)

    async def hello(self) -> Hello:
        """Wait until the box tells of itself.

        Raises:
            ForkRefused: it was to be a copy, and would not be sound.
            HostFault: it could not be made.
        """
        await readable(self.control.fileno())
        try:
            data, descriptors, _, _ = socket.recv_fds(self.control, _HELLO_BYTES, 8, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            data, descriptors = b"", []  # its end was closed with an order in it
        except OSError as error:
            raise HostFault(f"a box ended while it was made: {error}") from error
        if not data:
            raise self._why()
        message = json.loads(data[4:])
        if "error" in message:
            raise HostFault(f"cannot start a box: {message['error']}")
        for descriptor in descriptors[:2]:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        return Hello(name=message["box"], descriptors=descriptors, ours=message.get("ours", 1))

    def drop(self) -> None:
        """Let go; a box that was made after all ends by it."""
        self.control.close()
        os.close(self.status)

    def _why(self) -> HostFault | ForkRefused:
        with contextlib.suppress(OSError, ValueError):
            said = json.loads(os.read(self.status, _HELLO_BYTES))
            if "refused" in said:
                return ForkRefused(said["refused"])
            return HostFault(str(said.get("error", "a box ended while it was made")))
        return HostFault("a box ended while it was made")
