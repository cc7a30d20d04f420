"""Twins: workers made as copies of a stopped process, of a mold's own seed or of a live box. See csrc/twin.c.

A mold's end of the library: what it is told to make, what is checked before a live worker is copied and before a copy
runs. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from agenthub.sandboxes.isolation import syscalls as sys_
from agenthub.sandboxes.isolation.native import Native
from agenthub.sandboxes.isolation.rootfs import WORKSPACE

__all__ = ["Made", "Order", "Twins", "Unsound", "destroy", "memory_file"]

_MOLD = 100
"""Descriptor of a pidfd of the mold in its seed and in every twin; the C part knows the number too."""
_POST = 101
"""Descriptor of the socket through which a new twin gets its others."""
_GROUPS = 8
_MESSAGE_BYTES = 1 << 16
_SEED_S = 5.0
_STOP_S = 0.25
_PAUSE_S = 0.0005
_LATE_MS = 5_000
_WALL = 0x40000000
_ADD_SEALS, _EVERY_SEAL = 1033, 15
_SHARED = re.compile(r" (..[-x]s) [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ")
_SAFE = {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}


class Unsound(Exception):
    """A live worker cannot be copied as it is, and why. It goes on."""


class _Order(ctypes.Structure):
    _fields_ = [
        ("space", ctypes.c_int),
        ("control", ctypes.c_int),
        ("out", ctypes.c_int),
        ("err", ctypes.c_int),
        ("groups", ctypes.c_int * _GROUPS),
        ("group_count", ctypes.c_int),
        ("late", ctypes.c_int),
        ("uid", ctypes.c_uint),
        ("open_files", ctypes.c_ulong),
        ("processes", ctypes.c_ulong),
        ("file_bytes", ctypes.c_ulong),
        ("address_bytes", ctypes.c_ulong),
        ("filter", ctypes.c_char_p),
        ("filter_size", ctypes.c_size_t),
        ("post", ctypes.c_int),
        ("post_inside", ctypes.c_int),
        ("message", ctypes.c_char_p),
        ("message_size", ctypes.c_size_t),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a new worker is to be. Descriptors are this process's; the worker gets its own of them."""

    space: int
    """pidfd of the box's process 1."""
    control: int
    out: int
    err: int
    groups: Sequence[int]
    """The files of control groups through which a process moves itself."""
    late: int
    """How many of the last of them the worker enters by itself."""
    uid: int
    limits: dict[str, Any]
    """The fields of isolation.Limits."""
    cgroup_memory: bool


@dataclass(frozen=True, slots=True)
class Made:
    """Two processes, both stopped until `Twins.release`."""

    twin: int
    worker: int


class Twins:
    """The seed of one mold, and everything that is done to a stopped process. Used by one thread."""

    def __init__(self, library: ctypes.CDLL, filter: bytes, process_table: int, priority: int) -> None:
        """`priority`: nice value of the workers."""
        self._library, self._filter, self._table = library, filter, process_table
        self._processors, self._priority = os.sched_getaffinity(0), priority
        self._message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self._state = ctypes.create_string_buffer(library.twin_state_size())
        self._seed = 0
        self._post, self._post_inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    @staticmethod
    def load(native: Native) -> ctypes.CDLL:
        """The library; from a copy in memory, so that no box sees where it lies. Raises OSError."""
        descriptor = memory_file(native.library)
        try:
            library = ctypes.CDLL(f"/proc/self/fd/{descriptor}", use_errno=True)
        finally:
            os.close(descriptor)
        library.twin_error.restype = ctypes.c_char_p
        library.twin_state_size.restype = ctypes.c_size_t
        library.twin_park.restype = ctypes.c_long
        library.twin_seed.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.POINTER(_Order)]
        library.twin_make.argtypes = [ctypes.c_int, ctypes.POINTER(_Order), ctypes.c_void_p, ctypes.c_void_p]
        library.twin_release.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        return library

    def plant(self, resident: Callable[[int], NoReturn]) -> None:
        """Fork the seed of this process and stop it for ever. Raises OSError."""
        me = os.pidfd_open(os.getpid())
        pid = os.fork()
        if pid == 0:
            self._be_seed(me, resident)
        os.close(me)
        self._seed = pid
        deadline = time.monotonic() + _SEED_S
        message, order = ctypes.addressof(self._message), _Order(filter=self._filter, filter_size=len(self._filter))
        with self._in_time():
            while (done := self._library.twin_seed(pid, message, order)) == 0 and time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
        if done <= 0:
            error = self._error() if done < 0 else OSError("the seed did not come to rest")
            destroy(pid)
            raise error

    def make(self, order: Order, message: dict[str, Any]) -> Made:
        """A worker made of the seed, told `message`. Raises OSError."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > _MESSAGE_BYTES:
            raise OSError(f"a box's command and environment have {len(data)} bytes; at most {_MESSAGE_BYTES} are taken")
        with self._in_time():
            return self._make(self._seed, order, None, data)

    @contextlib.contextmanager
    def stopped(self, worker: int, twin: int) -> Iterator[None]:
        """Stop a live worker at the only place where it can be copied, waiting for its next order; then let it go on.

        Raises:
            Unsound: it does not get there, or has become another program.
        """
        deadline = time.monotonic() + _STOP_S
        with self._in_time():
            while (done := self._library.twin_stop(worker, twin, self._state)) == 0:
                if time.monotonic() > deadline:
                    raise Unsound("the program does not wait for its next turn")
                time.sleep(_PAUSE_S)
            if done < 0:
                raise Unsound(str(self._error()))
            try:
                yield
            finally:
                self._library.twin_release(worker, *self._everywhere(), self._priority)

    def copy(self, twin: int, order: Order) -> Made:
        """A copy of the worker that `stopped` holds. Raises OSError."""
        return self._make(twin, order, self._state, b"")

    def release(self, made: Made) -> None:
        """Let a worker run, after one more look at what it may do. Raises OSError; it has not run then."""
        facts = self._facts(f"{made.worker}/status")
        wrong = [name for name, wanted in _SAFE.items() if int(facts.get(name, "-1"), 16) != wanted]
        if wrong:
            raise OSError(f"a new worker is not as it should be: {', '.join(wrong)}")
        if self._library.twin_release(made.worker, *self._everywhere(), self._priority) < 0:
            raise self._error()

    def check(self, init: int, worker: int, folders: Sequence[int]) -> None:
        """Refuse what a copy would not carry. Raises Unsound; `folders` are descriptors of the box's own mounts."""
        threads = int(self._facts(f"{worker}/status").get("Threads", "0"))
        if threads != 1:
            raise Unsound(f"the program has {threads} threads")
        for pid in (worker, init):
            if self._read(f"{pid}/task/{pid}/children").strip():
                raise Unsound("the program has child processes")
        own = {os.fstat(folder).st_dev for folder in folders}
        anonymous = os.stat(self._anonymous()).st_dev
        maps = self._read(f"{worker}/maps")
        for device in own:
            if f" {os.major(device):02x}:{os.minor(device):02x} " in maps:
                raise Unsound("the program maps a file of its box into memory")
        for rights, major, minor in _SHARED.findall(maps):
            if "w" in rights or os.makedev(int(major, 16), int(minor, 16)) == anonymous:
                raise Unsound("the program shares memory (a MAP_SHARED mapping)")

    def alive(self, pid: int) -> bool:
        """True while a process has its memory: it has not begun to end."""
        try:
            os.readlink(f"{pid}/exe", dir_fd=self._table)
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """On one processor, for a stop is a switch between two processes; and with an end, whatever a program does."""
        here = {self._library.sched_getcpu()}
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, here)
        self._library.twin_begin(_LATE_MS)
        try:
            yield
        finally:
            self._library.twin_end()
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._processors)

    def _make(self, source: int, order: Order, state: Any, message: bytes) -> Made:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(source, os.sched_getaffinity(0))
        limits = order.limits
        told = _Order(
            order.space,
            order.control,
            order.out,
            order.err,
            (ctypes.c_int * _GROUPS)(*order.groups),
            len(order.groups),
            order.late,
            order.uid,
            limits["open_files"],
            limits["pids"],
            limits["disk_mb"] << 20,
            0 if order.cgroup_memory else limits["memory_mb"] << 20,
            self._filter,
            len(self._filter),
            self._post.fileno(),
            self._post_inside.fileno(),
            message,
            len(message),
        )
        pids = (ctypes.c_int * 2)()
        if self._library.twin_make(source, told, state, pids) < 0:
            error = self._error()
            destroy(*pids)
            raise error
        return Made(*pids)

    def _everywhere(self) -> tuple[Any, int]:
        mask = sum(1 << processor for processor in self._processors)
        size = max(self._processors) // 64 * 8 + 8
        return ctypes.create_string_buffer(mask.to_bytes(size, "little"), size), size

    def _facts(self, path: str) -> dict[str, str]:
        rows = (line.partition(":") for line in self._read(path).splitlines())
        return {name: value.strip() for name, _, value in rows}

    def _read(self, path: str) -> str:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._table)
        with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def _anonymous(self) -> int:
        if not hasattr(self, "_memory"):
            self._memory = os.memfd_create("shared", os.MFD_CLOEXEC)
        return self._memory

    def _error(self) -> OSError:
        return OSError(self._library.twin_error().decode())

    def _be_seed(self, me: int, resident: Callable[[int], NoReturn]) -> NoReturn:
        """Shed everything of the mold but its rights, rest, and wake up as a worker, again and again."""
        try:
            os.setsid()
            os.umask(0o022)
            os.setgroups([])
            sys_.capability_drop(bounding=True)
            null = os.open("/dev/null", os.O_RDWR)
            for wanted in (0, 1, 2):
                os.dup2(null, wanted)
            post = fcntl.fcntl(self._post_inside.fileno(), fcntl.F_DUPFD_CLOEXEC, _POST + 1)
            os.dup2(me, _MOLD, inheritable=False)
            os.dup2(post, _POST, inheritable=False)
            sys_.close_range(3, _MOLD - 1)
            sys_.close_range(_POST + 1)
            os.environ.clear()
            sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
            length = self._library.twin_park()
            _wake(json.loads(self._message.raw[:length]), resident)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(127)


def _wake(message: dict[str, Any], resident: Callable[[int], NoReturn]) -> NoReturn:
    """A new worker's first steps; it has nothing left but its box."""
    os.chdir(WORKSPACE)
    os.environ.update({"HOME": WORKSPACE, "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"})
    os.environ.update(message["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    argv = message["argv"]
    if argv:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.set_inheritable(3, True)
        try:
            os.execvpe(argv[0], argv, dict(os.environ))
        except OSError as error:
            os.write(2, f"cannot run: {error}\n".encode())
            os._exit(127)
    resident(3)


def memory_file(path: str) -> int:
    """A sealed copy of a file in memory, without a name."""
    descriptor = os.memfd_create(os.path.basename(path), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(path, "rb") as file:
        os.write(descriptor, file.read())
    fcntl.fcntl(descriptor, _ADD_SEALS, _EVERY_SEAL)
    return descriptor


def destroy(*pids: int) -> None:
    """End stopped processes that never ran, and wait for it."""
    for pid in pids:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for pid in filter(None, reversed(pids)):
        with contextlib.suppress(ChildProcessError):
            while os.WIFSTOPPED(os.waitpid(pid, _WALL)[1]):
                continue
