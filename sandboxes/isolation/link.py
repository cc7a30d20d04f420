"""The hub's end of a supervisor: starts the process, asks it for molds, and notices when either is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import agenthub
from agenthub.errors import HostFault
from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import messages
from agenthub.sandboxes.isolation.native import Native

__all__ = ["Link", "MoldLink", "readable", "writable"]

_START_S = 20.0
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from agenthub.sandboxes.isolation.supervisor import main; "
    "sys.path.remove(sys.argv[1]); main(int(sys.argv[2]), int(sys.argv[3]))"
)


def settle(waiting: asyncio.Future[None]) -> None:
    """Let whoever waits go on."""
    if not waiting.done():
        waiting.set_result(None)


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read or has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Wait until a descriptor takes bytes or its other end is gone."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _hung_up(channel: socket.socket) -> bool:
    """True where the other end is gone, asked of the kernel now: the event loop may tell too late."""
    events = select.poll()
    events.register(channel, 0)
    return bool(events.poll(0))


class MoldLink:
    """The hub's end of one mold."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._open = True
        self.no_fork = ""
        """Why live boxes of this mold cannot be copied; empty where they can."""
        self._listeners: list[Callable[[], None]] = []

    def on_close(self, listener: Callable[[], None]) -> None:
        """Call `listener` once the mold is gone or this end is closed."""
        self._listeners.append(listener)

    @property
    def alive(self) -> bool:
        """False once the mold is gone or this end is closed."""
        if self._open and _hung_up(self._channel):
            self.close()
        return self._open

    async def ready(self) -> None:
        """Wait until the mold has its image. Raises HostFault."""
        try:
            async with asyncio.timeout(_START_S):
                await readable(self._channel.fileno())
            message, _ = messages.receive(self._channel)
        except (OSError, TimeoutError) as error:
            self.close()
            raise HostFault(f"a mold did not start: {error or 'no answer in time'}") from error
        if message is None or "error" in message:
            self.close()
            raise HostFault(f"a mold did not start: {message['error'] if message else 'it ended'}")
        self.no_fork = message["no_fork"]
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self.close)

    async def spawn(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Send a request. Raises HostFault where the mold is gone."""
        while self.alive:
            try:
                messages.send(self._channel, message, descriptors)
                return
            except BlockingIOError:
                await writable(self._channel.fileno())
            except OSError:
                self.close()
        raise HostFault("the mold is gone")

    def close(self) -> None:
        """Let go; the mold kills its boxes and ends. A mold that says anything after `ready` has ended."""
        if self._open:
            self._open = False
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            for listener in self._listeners:
                listener()


class Link:
    """One supervisor process."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process, self._channel = process, channel
        self._waiting: dict[int, asyncio.Future[MoldLink]] = {}
        self._asked = 0
        self._open = True
        self.facts: dict[str, Any] = {}
        """controllers, rootless and groups, as the supervisor found them."""

    @property
    def alive(self) -> bool:
        """False once the supervisor is gone or this end is closed."""
        if self._open and _hung_up(self._channel):
            self._drop()
        return self._open

    @classmethod
    async def start(cls) -> Link:
        """Start a supervisor. Raises HostFault."""
        process, ours = _launch()
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
        asyncio.get_running_loop().add_reader(ours.fileno(), link._on_message)
        return link

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
            messages.send(self._channel, {"id": self._asked, "image": image, "mounts": rows} | parts)
        except OSError as error:
            raise HostFault(f"the supervisor is gone: {error}") from error
        link = await waiting
        await link.ready()
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
            waiting.set_result(MoldLink(channel))

    def _drop(self) -> None:
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(HostFault("the supervisor is gone"))
        self._waiting.clear()

    async def close(self, patience_s: float = 5.0) -> None:
        """End the supervisor, which ends its molds and boxes; kill it where it does not within the patience."""
        self._drop()
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self._process.pid)
            try:
                async with asyncio.timeout(patience_s):
                    await readable(pidfd)
            except TimeoutError:
                self._process.send_signal(signal.SIGKILL)
                await readable(pidfd)
            finally:
                os.close(pidfd)
        self._process.wait()


def _launch() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The supervisor's process and our end of its socket. Raises HostFault."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    folder = str(Path(agenthub.__file__).resolve().parent.parent)
    # A fixed hash seed keeps the order of sets equal from run to run; the environment holds nothing else.
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-B", "-c", _BOOT, folder, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        raise HostFault(f"the supervisor did not start: {error}") from error
    return process, ours
