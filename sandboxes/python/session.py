"""The Python tool of one episode: a live interpreter in a box, one cell a turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agenthub.errors import AgenthubError, BoxLost, ForkRefused, HostFault
from agenthub.isolation import Box, Copyable, Keepable
from agenthub.records import Call, Observation, Text
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.python.capture import Capture, Shown, harmless
from agenthub.sandboxes.python.channel import Channel, Overdue
from agenthub.sandboxes.python.frames import encode

__all__ = ["PythonSession", "Settings"]

_MAX_FRAME_BYTES = 1 << 20
_VALUE_CHARS = 32_768
_MOST_FILES = 10_000
_ORDER_S = 5.0
_MOST_LOST, _LOST_CHARS = 8, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The tool's own settings: `params` of a suite."""

    shown_bytes: int = 8192
    """Bytes of each output stream that an observation shows; half from its start, half from its end."""
    grace_s: float = 3.0
    """Seconds between the interrupt at the end of a turn's time and the end of the box."""


class PythonSession:
    """A `Sandbox`."""

    def __init__(self, box: Box, *, output_bytes: int, settings: Settings) -> None:
        self._box, self._settings = box, settings
        self._channel = Channel(box, max_frame_bytes=_MAX_FRAME_BYTES, output_bytes=output_bytes)
        self._turn = 0
        self._ended: str | None = None
        self._note = ""
        """Told with the next observation."""
        self._label = ""
        """What the next hub finds it under; empty where it is not kept."""

    def keep(self, label: str) -> None:
        """As Keepable.keep says."""
        self._label = label
        if isinstance(self._box, Keepable) and self._ended is None:
            self._box.keep({"label": label, "note": self._note})

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Go on where the session of a killed hub was, of which `facts` were kept."""
        self._label, self._note = facts["label"], facts["note"]

    def _keep_note(self) -> None:
        """The note has changed since the session was kept."""
        if self._label:
            self.keep(self._label)

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """Run one cell. Raises as Sandbox.call says."""
        code = call.arguments.get("code")
        if not isinstance(code, str) or len(call.arguments) != 1:
            text = "error: the tool takes one argument, code, a string of Python\n"
            return Observation(call_id=call.id, parts=(Text(text=text, channel="error"),), failed=True)
        self._check_alive()
        self._turn += 1
        out, err = Capture(self._settings.shown_bytes), Capture(self._settings.shown_bytes)
        dropped = self._channel.begin(out, err)
        try:
            reply, interrupted = await self._exchange(code, timeout_s)
        except (BoxLost, HostFault) as error:
            self._ended = str(error)
            self.discard()
            raise
        except asyncio.CancelledError:
            self._ended = "a turn was cancelled"
            self.discard()
            raise
        note, self._note = self._note, ""
        if note:
            self._keep_note()
        note += f"{dropped} bytes that were written between turns are not shown\n" if dropped else ""
        note += self._channel.finish()
        notice = f"interrupted after {timeout_s:g} s; the state of the session is kept\n" if interrupted else ""
        return _observation(call.id, out.shown(), err.shown(), reply, notice, note)

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """As Sandbox.read_file says."""
        self._check_alive()
        return await self._box.read_file(path, max_bytes=max_bytes)

    async def write_file(self, path: str, data: bytes) -> None:
        """As Sandbox.write_file says."""
        self._check_alive()
        await self._box.write_file(path, data)

    async def list_files(self) -> list[str]:
        """As Sandbox.list_files says."""
        self._check_alive()
        return await self._box.list_files(most=_MOST_FILES)

    async def fork(self, n: int) -> list[Sandbox]:
        """As Sandbox.fork says. A caller that gives up waiting leaves this session as it was, and no copy."""
        self._check_alive()
        making = asyncio.ensure_future(self._fork(n))
        try:
            return list(await asyncio.shield(making))
        except asyncio.CancelledError:
            with contextlib.suppress(AgenthubError):
                for copy in await making:
                    copy.discard()
            raise

    async def _fork(self, n: int) -> list[PythonSession]:
        box = self._box
        if not isinstance(box, Copyable):
            raise ForkRefused("a live interpreter cannot be copied here; its copies are made by replay")
        # From the first order to the last one the box is awake, as in a turn: what is frozen cannot be copied.
        self._channel.begin(Capture(1), Capture(1))
        await self._order(_order("fork"))
        try:
            boxes = await box.copies(n, encode(_order("forked", copy=True)))
        except AgenthubError:
            await self._order(_order("forked", copy=False))
            self._note += self._channel.finish()
            if self._note:
                self._keep_note()
            raise
        copies = [PythonSession(it, output_bytes=self._channel.output_bytes, settings=self._settings) for it in boxes]
        woken = await asyncio.gather(
            self._order(_order("forked", copy=False)),
            *(copy._wake_as_copy(self._turn) for copy in copies),
            return_exceptions=True,
        )
        faults = [it for it in woken if isinstance(it, BaseException)]
        if faults:
            for copy in copies:
                copy.discard()
            if isinstance(faults[0], BoxLost) and faults[0] is not woken[0]:
                raise ForkRefused(f"a copy ended as it woke up: {faults[0]}") from faults[0]
            raise faults[0]
        self._note += self._channel.finish()
        if self._note:
            self._keep_note()
        return copies

    async def _wake_as_copy(self, turn: int) -> None:
        self._turn = turn
        lost = (await self._order(_order("forked", copy=True), sent=True)).get("lost")
        if isinstance(lost, list) and lost:
            told = harmless(", ".join(map(str, lost[:_MOST_LOST]))[:_LOST_CHARS])
            self._note = f"open in the original, closed in this copy: {told}\n"
        self._note += self._channel.finish()

    async def _order(self, message: dict[str, object], *, sent: bool = False) -> dict[str, object]:
        """One exchange that runs no code of a turn. Raises BoxLost, HostFault."""
        deadline = asyncio.get_running_loop().time() + _ORDER_S
        try:
            reply, _ = await self._answer(message, deadline, f"{_ORDER_S:g} s", sent=sent)
        except (BoxLost, HostFault) as error:
            self._ended = str(error)
            self.discard()
            raise
        return reply

    async def close(self) -> None:
        """Free everything; the box's remains are gone a moment later, and all of them when the factory closes."""
        self._ended = self._ended or "it is closed"
        self.discard()

    def discard(self) -> None:
        """`close` without waiting for anything."""
        self._channel.close()
        self._box.discard()

    def _check_alive(self) -> None:
        if self._ended is not None:
            raise BoxLost(self._ended)

    async def _exchange(self, code: str, timeout_s: float) -> tuple[dict[str, object], bool]:
        """The reply to a cell, and whether it took an interrupt to get it."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        return await self._answer({"op": "exec", "id": self._turn, "code": code}, deadline, f"{timeout_s:g} s")

    async def _answer(
        self, message: dict[str, object], deadline: float, time: str, *, sent: bool = False
    ) -> tuple[dict[str, object], bool]:
        interrupted = False
        try:
            reply = await (self._channel.again(deadline) if sent else self._channel.ask(message, deadline))
        except Overdue:
            interrupted = True
            await self._box.signal_soft()
            try:
                # From when the program can know of it: to signal into a container takes its time on a busy machine.
                told = asyncio.get_running_loop().time()
                reply = await self._channel.again(told + self._settings.grace_s)
            except Overdue:
                reason = f"out of time: no answer {self._settings.grace_s:g} s after the interrupt at {time}"
                await self._channel.lost(reason)
        if reply.get("id") != message["id"]:
            await self._channel.lost("the program wrote to the sandbox's socket")
        return reply, interrupted


def _order(op: str, **more: object) -> dict[str, object]:
    return {"op": op, "id": op, **more}


def _observation(call_id: str, out: Shown, err: Shown, reply: dict[str, object], notice: str, note: str) -> Observation:
    """Output, error output, value, error, notice of a failure and note, in this order; empty ones are left out."""
    value, error = _text(reply.get("value")), _text(reply.get("error"))
    rows = (
        (out.text, "output"),
        (err.text, "error"),
        (value, "value"),
        (error, "error"),
        (notice, "notice"),
        (note, "notice"),
    )
    parts = tuple(Text(text=_line(text), channel=channel) for text, channel in rows if text)
    return Observation(
        call_id=call_id,
        parts=parts,
        failed=bool(error or notice),
        truncated=out.truncated or err.truncated,
        sha256=out.sha256 or err.sha256,
    )


def _text(value: object) -> str:
    """A string of a reply, made harmless and bounded: the box wrote it."""
    return harmless(value[:_VALUE_CHARS]) if isinstance(value, str) else ""


def _line(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
