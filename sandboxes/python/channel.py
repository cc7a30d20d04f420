"""One box's conversation with the hub: frames out and in, output streams read beside them, time and size held.

No threads and no task of its own: everything happens in callbacks of the event loop. One turn at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any, Protocol

from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import Box, Resting
from agenthub.sandboxes.python.frames import FrameError, FrameParser, encode

__all__ = ["Channel", "Overdue", "Sink"]

_CHUNK = 1 << 16
_CLOSED = "the program closed the sandbox's socket"
_NEWS_S = 0.25
_DROPPED_BYTES = 1 << 20
_DROP_EVERY_S = 0.005
"""Pause between two reads of a stream that is over its budget: a flood costs the hub 13 MB/s at most."""


class Sink(Protocol):
    """Where a stream's bytes go."""

    total: int

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""


class Overdue(Exception):
    """The time for an answer is up; the box is as it was."""


class Channel:
    """Frames and streams of one box. `begin`, then any number of `ask`, then `finish`."""

    def __init__(self, box: Box, *, max_frame_bytes: int, output_bytes: int) -> None:
        self._box = box
        self._resting = box if isinstance(box, Resting) else None
        self._socket = socket.socket(fileno=os.dup(box.fileno()))
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._parser = FrameParser(max_frame_bytes)
        self.output_bytes = output_bytes
        self._frames: list[dict[str, Any]] = []
        self._waiting: asyncio.Future[None] | None = None
        self._sinks: dict[int, Sink] = {}
        self._reading: set[int] = set()
        self._lost: str | None = None
        self._closed = False
        self._program_ended = asyncio.Event()
        self._loop.add_reader(self._socket.fileno(), self._on_frame)
        box.on_end(self._on_end)

    def begin(self, out: Sink, err: Sink) -> int:
        """Start a turn whose output goes into the sinks. Returns the bytes dropped that came since the last.

        What was stopped at the end of the last turn goes on.
        """
        dropped = 0
        if self._lost is None and not self._closed:
            dropped = sum(map(self._drop, self._box.streams()))
            if self._resting is not None:
                self._resting.wake()
        self._sinks = dict(zip(self._box.streams(), (out, err), strict=True))
        if self._lost is None:
            for descriptor in self._sinks:
                self._resume(descriptor)
        return dropped

    def finish(self) -> str:
        """End the turn: take what was written before the answer, and stop what goes on.

        Returns one line of what was ended, or nothing.
        """
        for descriptor in self._sinks:
            self._drain(descriptor)
        self._sinks = {}
        return self._resting.rest() if self._resting is not None else ""

    async def ask(self, message: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Send a message and wait for the next frame until `deadline` (loop seconds).

        Raises:
            Overdue: the time is up; `again` waits on.
            BoxLost, HostFault: as in Sandbox.call.
        """
        if self._frames:
            self._lose("the program wrote to the sandbox's socket")
        await self._send(encode(message), deadline)
        return await self.again(deadline)

    async def again(self, deadline: float) -> dict[str, Any]:
        """Wait for the next frame. Raises as `ask` does."""
        while not self._frames:
            if self._lost is not None or self._closed:
                await self._fail()
            self._waiting = self._loop.create_future()
            timer = self._loop.call_at(deadline, _expire, self._waiting)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        return self._frames.pop(0)

    def close(self) -> None:
        """Stop listening. The box is its owner's."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        for descriptor in self._reading:
            self._loop.remove_reader(descriptor)
        self._reading.clear()
        self._socket.close()

    async def lost(self, reason: str) -> None:
        """Kill the box and raise what its end means: BoxLost, or HostFault on evidence of ours."""
        self._lose(reason)
        await self._fail()

    async def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view and self._lost is None and not self._closed:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await self._writable(deadline)
            except OSError:
                self._lose(_CLOSED)

    async def _writable(self, deadline: float) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _settle, ready)
        timer = self._loop.call_at(deadline, _expire, ready)
        try:
            await ready
        finally:
            timer.cancel()
            self._loop.remove_writer(self._socket.fileno())

    async def _fail(self) -> None:
        for descriptor in self._sinks:
            self._drain(descriptor)
        self.close()
        reason = self._lost
        if reason == _CLOSED:
            # Its socket ends a moment before the news of how it ended arrives.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NEWS_S):
                    await self._program_ended.wait()
        end = await self._box.kill()
        if end.host_fault:
            raise HostFault(f"the box was lost: {end.reason}")
        raise BoxLost(end.reason if end.code is not None or end.oom else str(reason))

    def _on_frame(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
            if not data:
                self._lose(_CLOSED)
                return
            self._frames += self._parser.feed(data)
        except BlockingIOError:
            return
        except FrameError as error:
            self._lose(f"the program wrote to the sandbox's socket: {error}")
            return
        except OSError as error:
            self._lose(f"the sandbox's socket broke: {error}")
            return
        if self._waiting is None and len(self._frames) > 1:
            self._lose("the program wrote to the sandbox's socket")
        elif self._frames:
            self._wake()

    def _on_end(self) -> None:
        """The streams may be gone after this call: take what is in them, and stop listening."""
        self._program_ended.set()
        for descriptor in self._sinks:
            self._drain(descriptor)
        self._lose(_CLOSED)
        self.close()

    def _lose(self, reason: str) -> None:
        """Mark the box as lost. What it wrote before can still be drained."""
        if self._lost is None and not self._closed:
            self._lost = reason
            self._loop.remove_reader(self._socket.fileno())
            self._frames.clear()
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            _settle(self._waiting)

    def _resume(self, descriptor: int) -> None:
        if not self._closed and descriptor in self._sinks and descriptor not in self._reading:
            self._reading.add(descriptor)
            self._loop.add_reader(descriptor, self._on_output, descriptor)

    def _pause(self, descriptor: int) -> None:
        if descriptor in self._reading:
            self._reading.discard(descriptor)
            self._loop.remove_reader(descriptor)

    def _on_output(self, descriptor: int) -> None:
        sink = self._sinks.get(descriptor)
        if sink is None:
            # Written between turns: it stays in the pipe, whose size holds the writer back, and is dropped later.
            self._pause(descriptor)
        elif not self._read(descriptor, sink):
            self._pause(descriptor)
        elif sink.total > self.output_bytes:
            self._pause(descriptor)
            self._loop.call_later(_DROP_EVERY_S, self._resume, descriptor)

    def _drain(self, descriptor: int) -> None:
        """Take what is there, within one pipe's worth over the budget."""
        sink = self._sinks[descriptor]
        if self._closed:
            return
        budget = sink.total + 2 * _CHUNK
        while sink.total < budget and self._read(descriptor, sink):
            continue

    def _drop(self, descriptor: int) -> int:
        """Drop what is in a stream, within a flood's budget; how much it was."""
        dropped = 0
        with contextlib.suppress(BlockingIOError):
            while dropped < _DROPPED_BYTES and (data := os.read(descriptor, _CHUNK)):
                dropped += len(data)
        return dropped

    def _read(self, descriptor: int, sink: Sink) -> bool:
        """Read once; False where there is nothing more for now, or ever."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        sink.feed(data)
        return bool(data)


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _expire(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(Overdue())
