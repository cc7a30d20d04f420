"""A command in a running container: its exit status as the engine tells it, and a bounded part of its output."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from agenthub.errors import BoxLost
from agenthub.sandboxes.isolation.container_engine import APIError, Engine, Stream

__all__ = ["ExecDone", "ExecSpec", "Window", "execute"]

_QUIET_S = 0.25
_KILL = ("/bin/sh", "-c", "kill -9 -1")
_CHUNK = 1 << 16


@dataclass(slots=True)
class Window:
    """The first and the last bytes of a stream; what lies between is counted and dropped."""

    head_bytes: int
    tail_bytes: int = 0
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    total: int = 0
    """Bytes seen."""

    def add(self, data: bytes) -> None:
        """Take more of the stream."""
        self.total += len(data)
        room = self.head_bytes - len(self.head)
        self.head += data[:room]
        self.tail += data[max(room, 0) :][-self.tail_bytes :] if self.tail_bytes else b""
        if len(self.tail) > self.tail_bytes:
            del self.tail[: len(self.tail) - self.tail_bytes]

    @property
    def dropped(self) -> int:
        """Bytes between head and tail."""
        return self.total - len(self.head) - len(self.tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """What to run in the container."""

    argv: Sequence[str]
    stdin: bytes | None = None
    workdir: str = ""
    """Empty for the image's own."""
    head_bytes: int = 1 << 20
    tail_bytes: int = 0
    """How much of each of the two outputs is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecDone:
    """How a command ended."""

    code: int | None
    """Exit status from the engine; None where the time was up and all but process 1 was killed."""
    out: Window
    err: Window


async def execute(engine: Engine, container: str, spec: ExecSpec, *, timeout_s: float) -> ExecDone:
    """Run a command; at the end of its time everything of the box's user is killed.

    Raises:
        BoxLost: the container has ended.
        HostFault: the engine does not answer.
    """
    out, err = (Window(spec.head_bytes, spec.tail_bytes) for _ in range(2))
    identity, stream = await _start(engine, container, spec)
    code: int | None = None
    try:
        async with asyncio.timeout(timeout_s):
            await _talk(engine, identity, stream, spec.stdin, {1: out, 2: err})
            code = await _code(engine, identity)
    except TimeoutError:
        killer, ending = await _start(engine, container, ExecSpec(argv=_KILL))
        await _talk(engine, killer, ending, None, {})
        await ending.close()
    finally:
        await stream.close()
    return ExecDone(code=code, out=out, err=err)


async def _start(engine: Engine, container: str, spec: ExecSpec) -> tuple[str, Stream]:
    options = {"stdin": spec.stdin is not None, "workdir": spec.workdir or None}
    try:
        made = await engine.call(engine.api.exec_create, container, list(spec.argv), **options)
    except APIError as error:
        raise BoxLost(f"the box has ended: {error.explanation}") from error
    identity: str = made["Id"]
    return identity, await engine.hijack(f"/exec/{identity}/start", {"Detach": False, "Tty": False})


async def _talk(engine: Engine, identity: str, stream: Stream, stdin: bytes | None, windows: dict[int, Window]) -> None:
    """Copy until the output ends, or the command has ended and leftovers that hold its output are quiet."""
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(_feed(stream, stdin)) if stdin is not None else None
        pending = group.create_task(stream.frame())
        while True:
            done, _ = await asyncio.wait({pending}, timeout=_QUIET_S)
            if not done:
                if await _code(engine, identity) is None:
                    continue
                pending.cancel()
                break
            frame = pending.result()
            if frame is None:
                break
            if frame[0] in windows:
                windows[frame[0]].add(frame[1])
            pending = group.create_task(stream.frame())
        if feeding is not None:
            feeding.cancel()


async def _feed(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), _CHUNK):
        if not await stream.send(data[start : start + _CHUNK]):
            return
    if stream.writer.can_write_eof():
        stream.writer.write_eof()


async def _code(engine: Engine, identity: str) -> int | None:
    """Exit status; None while it runs."""
    try:
        facts = await engine.call(engine.api.exec_inspect, identity)
    except APIError as error:
        raise BoxLost(f"the box has ended: {error.explanation}") from error
    return None if facts["Running"] else facts["ExitCode"]
