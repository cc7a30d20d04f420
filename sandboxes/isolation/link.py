"""The hub's end of a supervisor: starts the process, asks it for molds, and notices when either is gone.

With a `Keep` the supervisor outlives a killed hub for a while, and `attaching` finds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import agenthub
from agenthub.errors import HostFault
from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import messages
from agenthub.sandboxes.isolation.native import Native

__all__ = ["Keep", "Link", "MoldLink", "Telling", "address", "readable", "safe", "writable"]

_START_S = 20.0
_BUSY_S = 0.005
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from agenthub.sandboxes.isolation.supervisor import main; "
    "sys.path.remove(sys.argv[1]); main(*map(int, sys.argv[2:5]), float(sys.argv[5]))"
)

Telling = Callable[[], tuple[dict[str, Any], Sequence[int]] | None]
"""Makes a message and its descriptors at the moment when it can be sent; None where it is of no use any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What a supervisor is to outlive its hub for."""

    socket: Path
    """Where the next hub finds it. Only its owner may get at the folder."""
    grace_s: float
    """Seconds that the next hub is waited for."""


def safe(folder: Path) -> bool:
    """True where nobody but us can put anything into a folder, or take anything out."""
    facts = folder.stat()
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o077


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """A name of a socket's path that is short enough for one, within the context. Raises OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


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

    def __init__(self, channel: socket.socket, number: int, no_fork: str = "") -> None:
        self._channel, self.number = channel, number
        self._open = True
        self.no_fork = no_fork
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
        self.watch()

    def watch(self) -> None:
        """Notice from now on when the mold ends."""
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
        if self._open and _hung_up(self._channel):
            self._drop()
        return self._open

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return int(self.facts["pid"])

    @classmethod
    async def start(cls, keep: Keep | None = None) -> Link:
        """Start a supervisor. Raises HostFault."""
        process, ours = _launch(keep)
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
            await _ended(pidfd, patience_s)
        if self._process is not None:
            self._process.wait()


async def _ended(pidfd: int, patience_s: float) -> None:
    """Wait for a process, kill it after the patience, and let go of it."""
    try:
        async with asyncio.timeout(patience_s):
            await readable(pidfd)
    except TimeoutError:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await readable(pidfd)
    finally:
        os.close(pidfd)


def _entrance(keep: Keep) -> socket.socket:
    """A socket that is bound where the next hub looks. Raises OSError."""
    keep.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not safe(keep.socket.parent):
        raise PermissionError(f"{keep.socket.parent} is not ours alone: make it mode 0700, or name another --log")
    keep.socket.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with address(keep.socket) as name:
            made.bind(name)
    except OSError:
        made.close()
        raise
    return made


def _launch(keep: Keep | None) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The supervisor's process and our end of its socket. Raises HostFault."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    folder = str(Path(agenthub.__file__).resolve().parent.parent)
    # A fixed hash seed keeps the order of sets equal from run to run; the environment holds nothing else.
    try:
        with theirs, contextlib.ExitStack() as stack:
            passed = [theirs.fileno()]
            numbers = [str(theirs.fileno()), str(os.getpid())]
            if keep is not None:
                passed.append(stack.enter_context(_entrance(keep)).fileno())
                numbers += [str(passed[-1]), str(keep.grace_s)]
            else:
                numbers += ["-1", "0"]
            process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-B", "-c", _BOOT, folder, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                cwd="/",
                pass_fds=passed,
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        raise HostFault(f"the supervisor did not start: {error}") from error
    return process, ours
