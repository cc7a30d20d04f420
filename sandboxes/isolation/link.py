"""The hub's end of a supervisor: starts the process, asks it for molds, and notices when either is gone.

With a `Keep` the supervisor outlives a killed hub for a while, and `attaching` finds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from agenthub.errors import HostFault
from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import messages
from agenthub.sandboxes.isolation.launch import Keep, launch
from agenthub.sandboxes.isolation.moldlink import MoldLink
from agenthub.sandboxes.isolation.native import Native
from agenthub.sandboxes.isolation.ready import ended, hung_up, readable

__all__ = ["Link", "Telling"]

_START_S = 20.0
_BUSY_S = 0.005
Telling = Callable[[], tuple[dict[str, Any], Sequence[int]] | None]
"""Makes a message and its descriptors at the moment when it can be sent; None where it is of no use any more."""


class Link:
    """One supervisor process."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | None,
        channel: socket.socket,
        facts: dict[str, Any] | None = None,
        pidfd: int = -1,
    ) -> None:
        """`process` is None for a supervisor that another process started; its `facts` and `pidfd` are given then."""
        self._process, self._channel, self._pidfd = process, channel, pidfd
        self._waiting: dict[int, asyncio.Future[MoldLink]] = {}
        self._untold: deque[Telling] = deque()
        self._asked = 0
        self._open = True
        self.facts: dict[str, Any] = facts or {}
        """pid, controllers, rootless and groups, as the supervisor found them."""

    @property
    def alive(self) -> bool:
        """False once the supervisor is gone or this end is closed."""
        if self._open and hung_up(self._channel):
            self._drop()
        return self._open

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return int(self.facts["pid"])

    @classmethod
    async def start(cls, keep: Keep | None = None) -> Link:
        """Start a supervisor. Raises HostFault."""
        process, ours = launch(keep)
        link = cls(process, ours)
        try:
            async with asyncio.timeout(_START_S):
                await readable(ours.fileno())
            message, _ = messages.receive(ours)
        except (OSError, TimeoutError) as error:
            await link.close()
            raise HostFault(f"the supervisor did not start: {error or 'no answer in time'}") from error
        except asyncio.CancelledError:
            link._drop()
            raise
        if message is None:
            await link.close()
            raise HostFault("the supervisor ended while it started; its error output says why")
        link.facts = message
        link.watch()
        return link

    def watch(self) -> None:
        """Hear from now on what the supervisor says."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._on_message)

    def tell(self, telling: Telling) -> None:
        """Send a message that is not answered, as soon as the supervisor takes it; in the order of the calls."""
        self._untold.append(telling)
        if len(self._untold) == 1:
            self._tell_on()

    def _tell_on(self) -> None:
        loop = asyncio.get_running_loop()
        while self._untold and self._open:
            said = self._untold[0]()
            try:
                if said is not None:
                    messages.send(self._channel, *said)
            except BlockingIOError:
                loop.add_writer(self._channel.fileno(), self._tell_on)
                return
            except OSError:
                # It is gone, and what it was told with it.
                self._untold.clear()
                break
            self._untold.popleft()
        if self._open:
            loop.remove_writer(self._channel.fileno())

    async def mold(self, image: str, mounts: Sequence[Mount], native: Native | None, no_native: str = "") -> MoldLink:
        """A new mold, with the C parts or the reason why there are none. Raises HostFault."""
        if not self.alive:
            raise HostFault("the supervisor is gone")
        self._asked += 1
        waiting: asyncio.Future[MoldLink] = asyncio.get_running_loop().create_future()
        self._waiting[self._asked] = waiting
        rows = [{"source": row.source, "target": row.target, "writable": row.writable} for row in mounts]
        try:
            parts = {"native": asdict(native) if native is not None else None, "no_native": no_native}
            asked = {"id": self._asked, "image": image, "mounts": rows} | parts
            while True:
                try:
                    messages.send(self._channel, asked)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_BUSY_S)
        except OSError as error:
            raise HostFault(f"the supervisor is gone: {error}") from error
        link = await waiting
        try:
            await link.ready()
        except HostFault:
            self.tell(lambda: ({"mold_gone": link.number}, ()))
            raise
        self.tell(lambda: ({"mold_ready": link.number, "no_fork": link.no_fork}, ()))
        return link

    def _on_message(self) -> None:
        try:
            message, descriptors = messages.receive(self._channel)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = None, []
        if message is None:
            self._drop()
            return
        waiting = self._waiting.pop(message["id"], None)
        if waiting is None or waiting.done():
            for descriptor in descriptors:
                os.close(descriptor)
        elif "error" in message:
            waiting.set_exception(HostFault(message["error"]))
        else:
            channel = socket.socket(fileno=descriptors[0])
            channel.setblocking(False)
            waiting.set_result(MoldLink(channel, message["mold"]))

    def _drop(self) -> None:
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            asyncio.get_running_loop().remove_writer(self._channel.fileno())
        self._channel.close()
        self._untold.clear()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(HostFault("the supervisor is gone"))
        self._waiting.clear()

    async def close(self, patience_s: float = 5.0) -> None:
        """End the supervisor, which ends its molds and boxes; kill it where it does not within the patience."""
        if self._open:
            with contextlib.suppress(OSError):
                # A full socket is a supervisor that hangs: it is killed below.
                messages.send(self._channel, {"stop": True})
        self._drop()
        pidfd, self._pidfd = self._pidfd, -1
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self._process.pid)
        if pidfd >= 0:
            await ended(pidfd, patience_s)
        if self._process is not None:
            self._process.wait()
