"""Process 1 of a container whose image has Python: joins the engine's stream to the resident program's descriptors.

Sent as text to `python3 -I -c`, so an image needs none of our files. Frames go both ways over standard input and
output: a channel byte, a length of 4 bytes, the data.

    from the hub: ORDER first ({"argv"} or {"modules", "resident"}), CONTROL bytes, FILE requests, INTERRUPT,
                  REST and WAKE (stop everything but the relay, and let it go on)
    to the hub:   CONTROL bytes, OUT and ERR bytes, FILE replies, WAKE once it is done,
                  ENDED {"code", "cpu_s", "peak_mb"} last

It reaps orphans and ends as the program ends: the kernel then kills everything else in the container. It ends as well
when its input does, so no box outlives its hub. Standard library only, no threads.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import importlib.abc
import importlib.machinery
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

ORDER, CONTROL, FILE, INTERRUPT, OUT, ERR, ENDED, REST, WAKE = range(9)
CHUNK = 65536
FULL = 1 << 18
PR_SET_DUMPABLE = 4
OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
WORKSPACE = "/workspace"
SETTLE_S = 0.5


def running() -> bool:
    """True where a thread of another process is not stopped."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task") if int(pid) != os.getpid() else ():
                with open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8", errors="replace") as file:
                    if file.read().rpartition(")")[2].split()[0] not in "TtZX":
                        return True
    return False


def settle() -> None:
    """Wait until everything is stopped: in gVisor a thread that runs does so for milliseconds after the signal."""
    end = time.monotonic() + SETTLE_S
    while running() and time.monotonic() < end:
        time.sleep(0.001)


class Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules from text; a name above one of them is a package."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package = any(name.startswith(fullname + ".") for name in self.modules)
        if fullname not in self.modules and not package:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=package)

    def get_source(self, fullname: str) -> str:
        return self.modules.get(fullname, "")


def undumpable() -> None:
    """Nobody of the same user may trace this process or open its descriptors."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def become_program(order: dict[str, Any], control: int, out: int, err: int) -> NoReturn:
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    kept = [os.dup(descriptor) for descriptor in (null, out, err, control)]
    for wanted, descriptor in enumerate(kept):
        os.dup2(descriptor, wanted)
    os.closerange(4, 256)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(WORKSPACE)
    if order.get("argv"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(order["argv"][0], order["argv"])
    undumpable()
    os.set_inheritable(3, False)
    sys.meta_path.append(Sources(order["modules"]))
    name, function = order["resident"].split(":")
    getattr(importlib.import_module(name), function)(3)
    os._exit(0)


class Files:
    """Files of the workspace, without following links; a program that swaps names under us stays in its own box."""

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            if asked["op"] == "list":
                return {"paths": sorted(self.walk(asked["most"]))}
            if asked["op"] == "read":
                return {"data": base64.b64encode(self.read(asked["path"], asked["max_bytes"])).decode()}
            self.write(asked["path"], base64.b64decode(asked["data"]))
            return {}
        except OSError as error:
            return {"error": error.strerror or "it is no regular file"}

    def folder(self, path: str, *, make: bool) -> tuple[int, str]:
        *above, name = path.split("/")
        here = os.open(WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | OPEN)
        for part in above:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            try:
                inner = self.below(here, part)
            finally:
                os.close(here)
            here = inner
        return here, name

    def below(self, here: int, part: str) -> int:
        """A folder in a folder. Some releases of gVisor follow a link here for all of O_NOFOLLOW, so it is compared."""
        seen = os.stat(part, dir_fd=here, follow_symlinks=False)
        inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | OPEN, dir_fd=here)
        found = os.fstat(inner)
        if not stat.S_ISDIR(seen.st_mode) or (seen.st_dev, seen.st_ino) != (found.st_dev, found.st_ino):
            os.close(inner)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return inner

    def regular(self, path: str, flags: int, *, make: bool) -> int:
        here, name = self.folder(path, make=make)
        try:
            descriptor = os.open(name, flags | OPEN, 0o644, dir_fd=here)
        finally:
            os.close(here)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError
        return descriptor

    def read(self, path: str, most: int) -> bytes:
        with os.fdopen(self.regular(path, os.O_RDONLY, make=False), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > most else file.read(most + 1)
        if size > most or len(data) > most:
            raise OSError(0, f"it has {max(size, len(data))} bytes; at most {most} can be read")
        return data

    def write(self, path: str, data: bytes) -> None:
        with os.fdopen(self.regular(path, os.O_WRONLY | os.O_CREAT, make=True), "wb") as file:
            file.truncate(0)
            file.write(data)

    def walk(self, most: int) -> Iterator[str]:
        waiting, found = [""], 0
        while waiting and found < most:
            here = waiting.pop()
            with contextlib.suppress(OSError), os.scandir(os.path.join(WORKSPACE, here)) as entries:
                for entry in entries:
                    path = os.path.join(here, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif entry.is_file(follow_symlinks=False) and found < most:
                        found += 1
                        yield path


class Relay:
    """Buffers between the hub's stream and the program's descriptors."""

    def __init__(self) -> None:
        self.to_hub = bytearray()
        self.to_program = bytearray()
        self.heard = bytearray()
        self.files = Files()

    def tell(self, channel: int, data: bytes) -> None:
        self.to_hub += bytes([channel]) + len(data).to_bytes(4, "big") + data

    def frames(self) -> Iterator[tuple[int, bytes]]:
        while len(self.heard) >= 5:
            size = int.from_bytes(self.heard[1:5], "big")
            if len(self.heard) < 5 + size:
                return
            channel, data = self.heard[0], bytes(self.heard[5 : 5 + size])
            del self.heard[: 5 + size]
            yield channel, data

    def order(self) -> dict[str, Any]:
        while True:
            data = os.read(0, CHUNK)
            if not data:
                os._exit(0)
            self.heard += data
            for _, order in self.frames():
                found: dict[str, Any] = json.loads(order)
                return found

    def start(self, order: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        out, out_inside = os.pipe2(os.O_CLOEXEC)
        err, err_inside = os.pipe2(os.O_CLOEXEC)
        self.program = os.fork()
        if self.program == 0:
            try:
                become_program(order, theirs.fileno(), out_inside, err_inside)
            except OSError as error:
                os.write(2, f"cannot run: {error}\n".encode())
            os._exit(127)
        theirs.close()
        os.close(out_inside)
        os.close(err_inside)
        self.control = ours
        self.sources = {err: ERR, out: OUT, ours.fileno(): CONTROL}
        for descriptor in (0, 1, *self.sources):
            os.set_blocking(descriptor, False)

    def wait(self) -> list[tuple[int, int]]:
        """Ready descriptors; nothing is read while what it would fill is full."""
        events = select.poll()
        wanted = dict.fromkeys(self.sources, select.POLLIN if len(self.to_hub) < FULL else 0)
        wanted[0] = select.POLLIN if len(self.to_program) < FULL else 0
        wanted[1] = select.POLLOUT if self.to_hub else 0
        if self.to_program:
            wanted[self.control.fileno()] = wanted.get(self.control.fileno(), 0) | select.POLLOUT
        for descriptor, flags in wanted.items():
            if flags:
                events.register(descriptor, flags)
        events.register(self.wake, select.POLLIN)
        return events.poll()

    def take(self) -> None:
        """Read what the hub sent; its end is ours."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(0, CHUNK)
            if not data:
                os._exit(0)
            self.heard += data
        self.obey()

    def obey(self) -> None:
        for channel, frame in self.frames():
            if channel == CONTROL:
                self.to_program += frame
            elif channel == FILE:
                self.tell(FILE, json.dumps(self.files.answer(json.loads(frame))).encode())
            elif channel == INTERRUPT:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.program, signal.SIGINT)
            elif channel == REST:
                # All at once, and nobody is left who could let another go on.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGSTOP)
                    settle()
            elif channel == WAKE:
                self.discard()
                self.tell(WAKE, b"")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGCONT)

    def discard(self) -> None:
        """Drop the output that is still in the pipes: it was written between turns."""
        for descriptor, channel in self.sources.items():
            with contextlib.suppress(BlockingIOError):
                while channel != CONTROL and os.read(descriptor, CHUNK):
                    continue

    def drain(self) -> None:
        """What the program wrote, output before replies: a reply must not overtake what was printed before it."""
        for descriptor, channel in list(self.sources.items()):
            with contextlib.suppress(BlockingIOError):
                while len(self.to_hub) < FULL or channel != CONTROL:
                    try:
                        data = os.read(descriptor, CHUNK)
                    except ConnectionResetError:
                        data = b""
                    if not data:
                        del self.sources[descriptor]
                        break
                    self.tell(channel, data)
                    if len(self.to_hub) >= FULL:
                        return

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.to_hub:
                del self.to_hub[: os.write(1, self.to_hub[:CHUNK])]
        try:
            while self.to_program:
                del self.to_program[: os.write(self.control.fileno(), self.to_program[:CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            self.to_program.clear()

    def reap(self) -> int | None:
        """The program's wait status once it has ended."""
        ended = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self.program:
                    ended = status
        return ended

    def run(self) -> int:
        """Until the program has ended; its exit code, negative for a signal."""
        self.wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self.start(self.order())
        # Frames may have come together with the order.
        self.obey()
        while True:
            ready = {descriptor for descriptor, _ in self.wait()}
            if self.wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 512)
            if 0 in ready:
                self.take()
            self.drain()
            self.flush()
            ended = self.reap()
            if ended is not None:
                self.drain()
                code = os.waitstatus_to_exitcode(ended)
                used = resource.getrusage(resource.RUSAGE_CHILDREN)
                facts = {"code": code, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss >> 10}
                self.tell(ENDED, json.dumps(facts).encode())
                os.set_blocking(1, True)
                self.flush()
                return code


if __name__ == "__main__":
    undumpable()
    code = Relay().run()
    os._exit(code if code >= 0 else 128 - code)
