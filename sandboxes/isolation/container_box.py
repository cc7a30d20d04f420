"""One box in a container, as the hub holds it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable
from typing import Any

from agenthub.errors import HostFault
from agenthub.isolation import BoxEnd, BoxUsage, Limits
from agenthub.sandboxes.isolation import container_relay as relay
from agenthub.sandboxes.isolation.container_engine import APIError, Engine, NotFound
from agenthub.sandboxes.isolation.container_exec import ExecDone, ExecSpec, execute
from agenthub.sandboxes.isolation.container_stream import BoxStream
from agenthub.sandboxes.isolation.container_usage import usage_of

__all__ = ["ContainerBox"]

_SIGNALLED = 128
_NEWS_S = 0.1


class ContainerBox:
    """A `Box`. What leads into it is one stream of the engine; when that ends, whoever ended it, the box ends."""

    def __init__(
        self,
        container: str,
        engine: Engine,
        stream: BoxStream,
        limits: Limits,
        forget: Callable[[ContainerBox], None],
        group: str = "docker",
    ) -> None:
        self.id, self.limits, self._group = container, limits, group
        self._engine, self._stream, self._forget = engine, stream, forget
        self._discarded = self._resting = False
        self._since = int(time.time()) - 1
        self._usage = BoxUsage(cpu_s=0.0, peak_mb=0)
        self._listeners: list[Callable[[], None]] = []
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[BoxEnd] = loop.create_future()
        # Both belong to the box for its whole life; the second ends after the first has.
        self._pumping = loop.create_task(self._pump(), name=f"box {container[:12]}")
        self._removing: asyncio.Task[None] | None = None

    def fileno(self) -> int:
        """The socket to the resident program."""
        return self._stream.control.fileno()

    def streams(self) -> tuple[int, int]:
        """Standard output and error."""
        return self._stream.out, self._stream.err

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call `listener` once the program has ended or the box is given up, at once where it has been."""
        if self._ended.done() or self._discarded:
            listener()
        else:
            self._listeners.append(listener)

    async def read_file(self, path: str, *, max_bytes: int) -> bytes:
        """As isolation.Box says."""
        return await self._stream.read_file(path, max_bytes=max_bytes)

    async def write_file(self, path: str, data: bytes) -> None:
        """As isolation.Box says."""
        await self._stream.write_file(path, data)

    async def list_files(self, *, most: int) -> list[str]:
        """As isolation.Box says."""
        return await self._stream.list_files(most=most)

    def usage(self) -> BoxUsage:
        """Usage so far where the engine runs on this machine, or what it was when last asked."""
        if not self._ended.done():
            self._usage = usage_of(self.id, self._group) or self._usage
        return self._usage

    async def signal_soft(self) -> None:
        """SIGINT to the resident program."""
        if not self._discarded:
            await self._stream.send(relay.INTERRUPT, b"")

    def rest(self) -> str:
        """As isolation.Resting says."""
        if not self._discarded and not self._ended.done():
            self._resting = True
            self._stream.rest()
        return ""

    def wake(self) -> None:
        """As isolation.Resting says."""
        if self._resting and not self._discarded and not self._ended.done():
            self._resting = False
            self._stream.wake()

    async def exec(self, spec: ExecSpec, *, timeout_s: float) -> ExecDone:
        """Run a command beside the resident program. Raises as `container_exec.execute` does."""
        return await execute(self._engine, self.id, spec, timeout_s=timeout_s)

    async def begin(self, order: dict[str, Any] | None) -> None:
        """Start the container, and tell the relay what to run; None for a plain program.

        Raises:
            HostFault: the start failed on our side.
        """
        if order is not None:
            await self._stream.send(relay.ORDER, json.dumps(order).encode())
        try:
            await self._engine.call(self._engine.api.start, self.id)
        except APIError as error:
            raise HostFault(f"a box could not be started: {error.explanation}") from error

    def discard(self) -> None:
        """Begin to remove the container, and close all that leads into it."""
        if self._discarded:
            return
        self.usage()
        self._discarded = True
        self._tell()
        self._stream.stop()
        self._stream.close()
        self._removing = asyncio.get_running_loop().create_task(self._remove(), name=f"remove {self.id[:12]}")

    async def kill(self) -> BoxEnd:
        """Discard, and wait until nothing is left."""
        self.discard()
        if self._removing is not None:
            await asyncio.shield(self._removing)
        return await self.ended()

    async def ended(self) -> BoxEnd:
        """Wait for the end."""
        return await asyncio.shield(self._ended)

    async def _pump(self) -> None:
        await self._stream.pump()
        if (told := self._stream.ended) is not None:
            used = BoxUsage(cpu_s=told["cpu_s"], peak_mb=told["peak_mb"])
            self._usage = max(self._usage, used, key=lambda usage: usage.cpu_s)
        end = await self._how()
        self._ended.set_result(end)
        self._tell()

    def _tell(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    async def _how(self) -> BoxEnd:
        told = self._stream.ended["code"] if self._stream.ended is not None else None
        if self._discarded:
            return BoxEnd(code=told, oom=False, reason="killed")
        try:
            state = (await self._engine.call(self._engine.api.inspect_container, self.id))["State"]
        except NotFound:
            # By us while we asked, or by somebody else.
            return BoxEnd(code=told, oom=False, reason="the container was removed", host_fault=not self._discarded)
        except (APIError, HostFault) as error:
            return BoxEnd(code=told, oom=False, reason=str(error), host_fault=told is None)
        if told is None and state["Status"] in ("running", "created"):
            return BoxEnd(code=None, oom=False, reason="the engine let go of the box", host_fault=True)
        code = told if told is not None else state["ExitCode"]
        if told is None and code > _SIGNALLED:
            code = _SIGNALLED - code
        # The engine remembers any process that the limit killed; only the program's own end is the box's.
        if code == -signal.SIGKILL and (state["OOMKilled"] or await self._oom_event()):
            return BoxEnd(code=code, oom=True, reason=f"out of memory: the box may use {self.limits.memory_mb} MiB")
        how = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        note = self._stream.note.decode(errors="backslashreplace").strip().splitlines()
        return BoxEnd(code=code, oom=False, reason=f"{how} ({note[-1]})" if note else how)

    async def _oom_event(self) -> bool:
        """True where the engine noted the limit's kill; the news may come after that of the end."""
        await asyncio.sleep(_NEWS_S)
        filters = {"container": self.id, "event": "oom"}
        until = int(time.time()) + 1
        try:
            return await self._engine.call(_any_event, self._engine, self._since, until, filters)
        except (APIError, HostFault):
            return False

    async def _remove(self) -> None:
        # Where it is gone already, or the engine is, there is nothing left to free from here.
        with contextlib.suppress(APIError, HostFault):
            await self._engine.call(self._engine.api.remove_container, self.id, force=True, v=True)
        self._stream.cut()
        self._forget(self)


def _any_event(engine: Engine, since: int, until: int, filters: dict[str, str]) -> bool:
    return any(True for _ in engine.api.events(since=since, until=until, filters=filters, decode=True))
