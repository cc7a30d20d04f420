"""One box of the jail, as the hub holds it: descriptors only, so that no call goes through another process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from agenthub.errors import HostFault
from agenthub.isolation import BoxEnd, BoxUsage, Limits
from agenthub.sandboxes.isolation import cgroups, files
from agenthub.sandboxes.isolation.expected import Hello
from agenthub.sandboxes.isolation.link import Telling
from agenthub.sandboxes.isolation.processes import Process, processes
from agenthub.sandboxes.isolation.rest import Rest

__all__ = ["JailBox"]

_STATUS_BYTES = 4096


class JailBox:
    """A `Box`. Letting go of its status pipe, for whatever reason, ends the box."""

    def __init__(
        self,
        control: socket.socket,
        status: int,
        hello: Hello,
        limits: Limits,
        groups: Mapping[str, str],
        changed: Callable[[JailBox], None],
        copies: Callable[[JailBox, int, bytes], Awaitable[list[JailBox]]],
        tell: Callable[[Telling], None],
        mold: int,
    ) -> None:
        self.id = name = hello.name
        self.limits = limits
        self._control, self._status = control, status
        self._out, self._err, self._folder, self._init, self._worker = hello.descriptors
        self._groups, self._changed, self._copies, self._tell_supervisor = groups, changed, copies, tell
        self._ours, self._mold = hello.ours, mold
        self._kept = False
        """The supervisor holds on to it beside us."""
        self._rest = Rest(groups, name, init=self._init, worker=self._worker, alone=hello.ours + 1)
        self._heard = b""
        self._before = 1 << 62
        """How much was heard before the box was given up; what its worker did after that, it did not do by itself."""
        self._discarded = False
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[BoxEnd] = self._loop.create_future()
        self._listeners: list[Callable[[], None]] = []
        self._usage: BoxUsage | None = None
        self._loop.add_reader(status, self._on_status)

    def fileno(self) -> int:
        """The socket to the resident program."""
        return self._control.fileno()

    def streams(self) -> tuple[int, int]:
        """Standard output and error."""
        return self._out, self._err

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call `listener` once the worker has ended or the box is given up, at once where it has been."""
        if self._heard or self._discarded or self._ended.done():
            listener()
        else:
            self._listeners.append(listener)

    async def read_file(self, path: str, *, max_bytes: int) -> bytes:
        """As isolation.Box says."""
        return files.read_file(self._folder, path, max_bytes=max_bytes)

    async def write_file(self, path: str, data: bytes) -> None:
        """As isolation.Box says."""
        owner = os.fstat(self._folder).st_uid
        files.write_file(self._folder, path, data, owner=owner if owner != os.geteuid() else None)

    async def list_files(self, *, most: int) -> list[str]:
        """As isolation.Box says."""
        return files.list_files(self._folder, most=most)

    def usage(self) -> BoxUsage:
        """Usage so far, or what it was when the box ended."""
        if self._usage is not None:
            return self._usage
        return _usage(cgroups.usage_of(self._groups, self.id))

    async def signal_soft(self) -> None:
        """SIGINT to the worker."""
        if not self._discarded:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._worker, signal.SIGINT)

    def rest(self) -> str:
        """As isolation.Resting says."""
        return self._rest.begin() if not self._discarded else ""

    def wake(self) -> None:
        """As isolation.Resting says."""
        self._rest.end()

    @property
    def freezes(self) -> bool:
        """True where `rest` stops what runs; elsewhere it ends what was started since the first turn."""
        return self._rest.freezes

    def processes(self) -> tuple[Process, ...]:
        """The processes in the box, as the machine sees them; none once it has been given up."""
        return processes(self._groups, self.id, self._init) if not self._discarded else ()

    async def copies(self, count: int, order: bytes) -> list[JailBox]:
        """As isolation.Copyable says."""
        if self._discarded:
            raise HostFault("the box was given up")
        return await self._copies(self, count, order)

    def keep(self, facts: Mapping[str, Any]) -> None:
        """As isolation.Keepable says."""
        if self._discarded or self._ended.done():
            return
        self._kept = True
        said = {
            "box": self.id,
            "mold": self._mold,
            "limits": asdict(self.limits),
            "ours": self._ours,
            "facts": dict(facts),
        }

        def telling() -> tuple[dict[str, Any], list[int]] | None:
            if self._discarded or self._ended.done():
                return None
            into = (self._out, self._err, self._folder, self._init, self._worker)
            return {"keep": said}, [self._control.fileno(), self._status, *into]

        self._tell_supervisor(telling)

    def found(self) -> None:
        """It was left by another hub, and the supervisor holds on to it."""
        self._kept = True
        self._rest.found()

    def discard(self) -> None:
        """Kill process 1, and with it everything in the box, and close all that leads into it."""
        if self._discarded:
            return
        if not self._ended.done():
            with contextlib.suppress(BlockingIOError):
                self._heard += os.read(self._status, _STATUS_BYTES)
        self._before = len(self._heard)
        self._discarded = True
        self._rest.close()
        # Whoever listens on these descriptors stops before their numbers can mean something else.
        self._tell()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)
        self._control.close()
        for descriptor in (self._out, self._err, self._folder, self._init, self._worker):
            os.close(descriptor)
        if self._kept:
            self._tell_supervisor(lambda: ({"forget": self.id}, []))
        self._changed(self)

    def condemn(self) -> None:
        """Cut the socket of a box that is certain to end: whoever has it notices, and a pool does not give it out."""
        if not self._discarded:
            self._rest.close()
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)

    @property
    def end(self) -> BoxEnd | None:
        """How it ended; None while it lives."""
        return self._ended.result() if self._ended.done() else None

    @property
    def finished(self) -> bool:
        """True once it has ended and nothing leads into it."""
        return self._discarded and self._ended.done()

    async def kill(self) -> BoxEnd:
        """Discard, and wait until nothing is left."""
        self.discard()
        return await self.ended()

    async def ended(self) -> BoxEnd:
        """Wait for the end."""
        return await asyncio.shield(self._ended)

    def _on_status(self) -> None:
        """Lines of process 1 and of the mold; the end of the pipe is the end of everything in the box."""
        try:
            data = os.read(self._status, _STATUS_BYTES)
        except BlockingIOError:
            return
        self._heard += data
        if not data:
            self._loop.remove_reader(self._status)
            os.close(self._status)
            # The worker may be dying still: nobody is to take it for alive, and it must not be frozen meanwhile.
            self.condemn()
            self._conclude()
        self._tell()

    def _tell(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def _conclude(self) -> None:
        code: int | None = None
        used: dict[str, float] | None = None
        lost = ""
        at = 0
        for line in self._heard.splitlines(keepends=True):
            row = json.loads(line)
            lost = row.get("lost", lost)
            # What was ended by our side did not end by itself, whatever is heard of it afterwards.
            code = row.get("worker", code) if at < self._before and not lost else code
            at += len(line)
            used = row.get("usage", used)
        self._usage = _usage(used or {})
        oom = bool(used and used["oom"])
        if code is None and (lost or used is None):
            end = BoxEnd(code=None, oom=False, reason=lost or "the mold or the supervisor is gone", host_fault=True)
        else:
            end = BoxEnd(code=code, oom=oom, reason=_reason(code, oom=oom, limits=self.limits))
        self._ended.set_result(end)
        self._changed(self)


def _usage(used: Mapping[str, float]) -> BoxUsage:
    return BoxUsage(cpu_s=used.get("cpu_s", 0.0), peak_mb=int(used.get("peak_mb", 0.0)))


def _reason(code: int | None, *, oom: bool, limits: Limits) -> str:
    if oom and code in (None, -signal.SIGKILL):
        return f"out of memory: the box may use {limits.memory_mb} MiB"
    if code is None:
        return "killed"
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}"
    return f"exited with status {code}"
