"""A container's one stream as the hub's end of a box: a socket to the program, two pipes of output, files, the end.

Frames are the relay's (`container_relay`). The hub reads socket and pipes as it does those of any box.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from asyncio.streams import FlowControlMixin
from collections import deque
from typing import Any

from agenthub.errors import UserError
from agenthub.sandboxes.isolation import container_relay as relay
from agenthub.sandboxes.isolation.container_engine import Stream

__all__ = ["BoxStream"]

_FILE_S = 10.0
_NOTE_BYTES = 2048
_BACKLOG_BYTES = 4 << 20
"""Unread output that is held for the hub before the box has to wait."""


class BoxStream:
    """Made before the container starts; `pump` runs until the stream ends."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.control, self._inner = socket.socketpair()
        self.out, out_inner = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.err, err_inner = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.control.setblocking(False)
        self._pipes = {relay.OUT: out_inner, relay.ERR: err_inner}
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._asked: deque[asyncio.Future[dict[str, Any]]] = deque()
        self._heard = bytearray()
        self._over = False
        self._stopped = self._resting = False
        self.note = b""
        """The last of what process 1 itself printed: why it could not start."""
        self.ended: dict[str, Any] | None = None
        """How the program ended and what it used, as process 1 told it: code, cpu_s, peak_mb."""

    async def send(self, channel: int, data: bytes) -> None:
        """Send one frame; nothing happens where the box has ended."""
        await self._stream.send(bytes([channel]) + len(data).to_bytes(4, "big") + data)

    def rest(self) -> None:
        """Stop everything that runs in the box; what it still printed is dropped."""
        self._resting = True
        self._stream.writer.write(bytes([relay.REST, 0, 0, 0, 0]))

    def wake(self) -> None:
        """Let it go on."""
        self._stream.writer.write(bytes([relay.WAKE, 0, 0, 0, 0]))

    def stop(self) -> None:
        """Hand nothing more to the hub: its descriptors end, and what waits for it to read does not wait on."""
        self._stopped = True
        for writer in self._writers.values():
            if not writer.is_closing():
                writer.transport.abort()

    def cut(self) -> None:
        """Let go of the engine's end, which ends `pump` where the engine has not."""
        self._stream.writer.transport.abort()

    def close(self) -> None:
        """Close the hub's descriptors."""
        self.control.close()
        os.close(self.out)
        os.close(self.err)

    async def pump(self) -> None:
        """Copy both ways until the stream ends; then nothing more will come out of the hub's descriptors."""
        reader = await self._open()
        upward = asyncio.create_task(self._upward(reader))
        try:
            while (frame := await self._stream.frame()) is not None:
                if frame[0] != 1:
                    self.note = (self.note + frame[1])[-_NOTE_BYTES:]
                    continue
                self._heard += frame[1]
                await self._dispatch()
        finally:
            self._over = True
            upward.cancel()
            for answer in self._asked:
                if not answer.done():
                    answer.set_result({"error": "the box has ended"})
            self._asked.clear()
            for writer in self._writers.values():
                writer.close()
            await self._stream.close()

    async def read_file(self, path: str, *, max_bytes: int) -> bytes:
        """As isolation.Box says; process 1 of the container reads it."""
        answer = await self._file({"op": "read", "path": _checked(path), "max_bytes": max_bytes})
        return base64.b64decode(answer["data"])

    async def write_file(self, path: str, data: bytes) -> None:
        """As isolation.Box says."""
        await self._file({"op": "write", "path": _checked(path), "data": base64.b64encode(data).decode()})

    async def list_files(self, *, most: int) -> list[str]:
        """As isolation.Box says."""
        paths: list[str] = (await self._file({"op": "list", "most": most}))["paths"]
        return paths

    async def _open(self) -> asyncio.StreamReader:
        loop = asyncio.get_running_loop()
        reader, self._writers[relay.CONTROL] = await asyncio.open_connection(sock=self._inner)
        for channel, descriptor in self._pipes.items():
            pipe = os.fdopen(descriptor, "wb", buffering=0)
            transport, protocol = await loop.connect_write_pipe(FlowControlMixin, pipe)
            transport.set_write_buffer_limits(high=0)
            self._writers[channel] = asyncio.StreamWriter(transport, protocol, None, loop)
        return reader

    async def _upward(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self.send(relay.CONTROL, data)

    async def _dispatch(self) -> None:
        heard = self._heard
        while len(heard) >= 5 and len(heard) >= 5 + (size := int.from_bytes(heard[1:5], "big")):
            channel, data = heard[0], bytes(heard[5 : 5 + size])
            del heard[: 5 + size]
            if channel == relay.WAKE:
                self._resting = False
            elif self._resting and channel in self._pipes:
                continue
            elif channel in self._writers and not self._stopped:
                with contextlib.suppress(OSError):
                    await self._pass_on(channel, data)
            elif channel == relay.ENDED:
                self.ended = json.loads(data)
            elif channel == relay.FILE and self._asked:
                answer = self._asked.popleft()
                if not answer.done():
                    answer.set_result(json.loads(data))

    async def _pass_on(self, channel: int, data: bytes) -> None:
        """Hand bytes to the hub; a reply waits until all output before it is in the pipes."""
        writer = self._writers[channel]
        if channel == relay.CONTROL:
            for printed in self._pipes:
                with contextlib.suppress(OSError):
                    await self._writers[printed].drain()
        writer.write(data)
        if writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            await writer.drain()

    async def _file(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask process 1. Raises UserError for what it refuses or where the box has ended."""
        if self._over:
            raise UserError("the box has ended")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        await self.send(relay.FILE, json.dumps(request).encode())
        try:
            async with asyncio.timeout(_FILE_S):
                found = await answer
        except TimeoutError:
            raise UserError(f"the box did not answer within {_FILE_S:g} s") from None
        if "error" in found:
            raise UserError(f"file {request.get('path', '')!r}: {found['error']}")
        return found


def _checked(path: str) -> str:
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise UserError(f"path {path!r} is not a relative path inside the workspace")
    return path
