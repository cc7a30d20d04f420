"""A fresh interpreter for grading: plain typed values in and out, nothing of an episode in it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agenthub.errors import BoxLost
from agenthub.isolation import Box
from agenthub.sandbox import Plain, ProgramRun
from agenthub.sandboxes.python.capture import Kept
from agenthub.sandboxes.python.channel import Channel, Overdue
from agenthub.sandboxes.python.plain import NotPlain, pack, unpack

__all__ = ["PythonCodeBox"]

_MAX_FRAME_BYTES = 8 << 20
_ERROR_CHARS = 2000

Candidate = Callable[[Sequence[Any], Mapping[str, Any]], Awaitable[Plain]]


class PythonCodeBox:
    """A `CodeBox`. A box whose time is up is killed at once: nothing in it is worth an interrupt."""

    def __init__(self, box: Box, *, output_bytes: int) -> None:
        self._box = box
        self._output_bytes = output_bytes
        self._channel = Channel(box, max_frame_bytes=_MAX_FRAME_BYTES, output_bytes=output_bytes)
        self._asked = 0
        self._lost: str | None = None

    async def load(self, source: str, *, timeout_s: float) -> Plain:
        """As CodeBox.load says."""
        return await self._simple({"op": "load", "source": source}, timeout_s)

    async def invoke(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float) -> Plain:
        """As CodeBox.invoke says."""
        try:
            message = {"op": "invoke", "name": name, "args": pack(list(args)), "kwargs": pack(dict(kwargs))}
        except NotPlain as error:
            return Plain(error=f"TypeError: {error}")
        return await self._simple(message, timeout_s)

    async def drive(self, name: str, *, candidate: Candidate, timeout_s: float) -> Plain:
        """As CodeBox.drive says."""
        deadline = asyncio.get_running_loop().time() + timeout_s

        async def work() -> dict[str, Any]:
            reply = await self._ask({"op": "drive", "name": name}, deadline)
            while isinstance(call := reply.get("call"), dict):
                answer = await _answer(candidate, call, deadline)
                reply = await self._channel.ask(answer, deadline)
            return reply

        plain, _ = await self._guarded(work, timeout_s)
        return plain

    async def run(self, source: str, *, stdin: bytes, timeout_s: float) -> tuple[Plain, bytes]:
        """As CodeBox.run says."""
        message = {"op": "run", "source": source, "stdin": base64.b64encode(stdin).decode("ascii")}
        deadline = asyncio.get_running_loop().time() + timeout_s
        return await self._guarded(lambda: self._ask(message, deadline), timeout_s, exits=True)

    async def program(self, source: str, *, stdin: bytes, compile_s: float, run_s: float) -> dict[str, ProgramRun]:
        """As Programs.program says; Python has one stage, and a box one program."""
        if self._lost is not None:
            raise BoxLost(self._lost)
        given = base64.b64encode(stdin).decode("ascii")
        loop, out, err = asyncio.get_running_loop(), Kept(self._output_bytes), Kept(self._output_bytes)
        self._channel.begin(out, err)
        began, code = loop.time(), None
        try:
            reply = await self._ask({"op": "run", "source": source, "stdin": given, "trace": True}, began + run_s)
            self._channel.finish()
            code = _status(reply)
        except Overdue:
            self._gone(f"out of time after {run_s:g} s")
        except BoxLost as lost:
            code = (await self._box.ended()).code
            self._gone(str(lost))
            if code is None:
                raise
        spent = loop.time() - began
        return {"run": ProgramRun(code=code, out=bytes(out.data), err=bytes(err.data), seconds=spent)}

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """As Programs.read_file says."""
        return await self._box.read_file(path, max_bytes=max_bytes)

    async def write_file(self, path: str, data: bytes) -> None:
        """As Programs.write_file says."""
        await self._box.write_file(path, data)

    async def close(self) -> None:
        """Free the box; its remains are gone a moment later."""
        self._lost = self._lost or "the box is closed"
        self._channel.close()
        self._box.discard()

    async def _simple(self, message: dict[str, Any], timeout_s: float) -> Plain:
        deadline = asyncio.get_running_loop().time() + timeout_s
        plain, _ = await self._guarded(lambda: self._ask(message, deadline), timeout_s)
        return plain

    async def _ask(self, message: dict[str, Any], deadline: float) -> dict[str, Any]:
        self._asked += 1
        return await self._channel.ask(message | {"id": self._asked}, deadline)

    async def _guarded(
        self, work: Callable[[], Awaitable[dict[str, Any]]], timeout_s: float, *, exits: bool = False
    ) -> tuple[Plain, bytes]:
        """Do one exchange; every end of the box becomes a Plain, and with `exits` an exit status is a value."""
        if self._lost is not None:
            return Plain(error=self._lost, lost=True), b""
        out, err = Kept(self._output_bytes), Kept(0)
        self._channel.begin(out, err)
        try:
            reply = await work()
            if reply.get("id") != self._asked:
                await self._channel.lost("the program wrote to the sandbox's socket")
        except Overdue:
            plain = self._gone(f"out of time after {timeout_s:g} s")
        except BoxLost as error:
            end = await self._box.ended()
            plain = self._gone(str(error))
            if exits and end.code is not None and end.code >= 0:
                plain = Plain(value=end.code, lost=True)
        except BaseException:
            await self.close()
            raise
        else:
            self._channel.finish()
            plain = _plain(reply)
        return plain, bytes(out.data)

    def _gone(self, reason: str) -> Plain:
        self._lost = reason
        self._channel.close()
        self._box.discard()
        return Plain(error=reason, lost=True)


async def _answer(candidate: Candidate, call: dict[str, Any], deadline: float) -> dict[str, Any]:
    """What the candidate made of one call of the proxy, as a message to the test box."""
    try:
        args, kwargs = unpack(call.get("args")), unpack(call.get("kwargs"))
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise NotPlain("expected arguments")
        async with asyncio.timeout_at(deadline) as limit:
            plain = await candidate(args, kwargs)
        if plain.error is not None:
            return {"value": None, "error": plain.error}
        return {"value": pack(plain.value), "error": None}
    except NotPlain as error:
        return {"value": None, "error": f"TypeError: {error}"}
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Overdue from error


def _status(reply: dict[str, Any]) -> int:
    """The exit status that a script's reply says; the program may have written anything there."""
    value = _plain(reply).value
    return value & 0xFF if type(value) is int else 1


def _plain(reply: dict[str, Any]) -> Plain:
    """A reply of a box as a value; what it cannot be is an error."""
    error = reply.get("error")
    if error is not None:
        return Plain(error=str(error)[:_ERROR_CHARS])
    try:
        return Plain(value=unpack(reply.get("value")))
    except NotPlain as fault:
        return Plain(error=f"TypeError: {fault}")
