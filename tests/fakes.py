"""Hand-written fakes: sandboxes that answer from a script, and fail on command."""

from __future__ import annotations

import asyncio
import itertools
import struct
import zlib
from dataclasses import replace
from typing import ClassVar

from agenthub.errors import BoxLost, ForkRefused, HostFault, UserError
from agenthub.images import image_ref
from agenthub.records import Call, ImageRef, Observation, Text, frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, CodeBox, Sandbox, SandboxSpec, ToolSpec
from agenthub.suites.task import Check, Task, TaskLimits, ToolUse, Verifier

__all__ = ["FakeFactory", "fake_task", "png"]

_NAME = "fake"
_chance = itertools.count()


class FakeSandbox:
    """Echoes `code` and how many calls there were; the words lost, host, slow, fail, chance and thread make it do so.

    Remembers whether it was closed.
    """

    def __init__(self, spec: SandboxSpec) -> None:
        self.spec, self.closed, self.calls = spec, False, 0
        self.store: dict[str, bytes] = dict(spec.files)
        self.threaded = False

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        self.calls += 1
        code = str(call.arguments.get("code", ""))
        if code == "lost":
            raise BoxLost("killed by its memory limit")
        if code == "host":
            raise HostFault("the supervisor is gone")
        if code == "chance":
            code = str(next(_chance))
        self.threaded = self.threaded or code == "thread"
        if code.startswith("slow"):
            await asyncio.sleep(min(timeout_s, float(code.split()[1])))
        return Observation(call_id=call.id, parts=(Text(text=f"{code}#{self.calls}"),), failed=code == "fail")

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        if path not in self.store:
            raise UserError(f"no file {path!r}")
        return self.store[path]

    async def write_file(self, path: str, data: bytes) -> None:
        self.store[path] = data

    async def list_files(self) -> list[str]:
        return sorted(self.store)

    async def fork(self, n: int) -> list[Sandbox]:
        if self.threaded:
            raise ForkRefused("the program has a second thread")
        copies: list[Sandbox] = []
        for _ in range(n):
            copy = FakeSandbox(self.spec)
            copy.calls, copy.store = self.calls, dict(self.store)
            FakeFactory.made.append(copy)
            copies.append(copy)
        return copies

    async def close(self) -> None:
        self.closed = True


class FakeFactory:
    """Makes fake sandboxes and keeps the list of them; an image named `broken` cannot be started."""

    tools = (
        ToolSpec(name="echo", description="Shows its code.", parameters={"type": "object"}),
        ToolSpec(name="other", description="The same box by another name.", parameters={"type": "object"}),
    )
    made: list[FakeSandbox] = []  # noqa: RUF012 - one list for the tests of one process

    def __init__(self, isolation: str = "jail") -> None:
        self.isolation = isolation

    fork: ClassVar[str] = "replay"

    def capabilities(self) -> Capabilities:
        return Capabilities(persistent=True, deterministic=True, fork=self.fork)

    async def open(self) -> None:
        return None

    async def start(self, spec: SandboxSpec) -> Sandbox:
        if spec.image == "broken":
            raise HostFault("no box could be started")
        box = FakeSandbox(spec)
        FakeFactory.made.append(box)
        return box

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        raise UserError("the fake runs no code")

    async def close(self) -> None:
        return None


class CopyableFactory(FakeFactory):
    """Fakes that can be copied live."""

    fork = "native"


class StatelessFactory(FakeFactory):
    """Fakes of which a fresh one is a copy."""

    fork = "stateless"


class SingleFactory(FakeFactory):
    """Fakes that can be neither copied nor replayed."""

    fork = "no"


class PicturedSandbox(FakeSandbox):
    """A fake that shows an image before the first turn, and one more, of the width that `code` names, in each."""

    def __init__(self, spec: SandboxSpec) -> None:
        super().__init__(spec)
        self._blobs: dict[str, bytes] = {}
        self.opening_images = (self._image(1),)

    def _image(self, width: int) -> ImageRef:
        data = png(width, 2)
        ref = image_ref(data)
        self._blobs[ref.sha256] = data
        return ref

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        seen = await super().call(call, timeout_s=timeout_s)
        return replace(seen, parts=(*seen.parts, self._image(int(str(call.arguments["code"])))))

    def take_blobs(self) -> dict[str, bytes]:
        taken, self._blobs = self._blobs, {}
        return taken


class PicturedFactory(FakeFactory):
    """Fakes that show images."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        return PicturedSandbox(spec)


def png(width: int, height: int) -> bytes:
    """A black PNG image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(bytes(1 + width) for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


registry("sandbox").add(_NAME, "tests.fakes:FakeFactory")
registry("sandbox").add("fake_pictured", "tests.fakes:PicturedFactory")
registry("sandbox").add("fake_copyable", "tests.fakes:CopyableFactory")
registry("sandbox").add("fake_stateless", "tests.fakes:StatelessFactory")
registry("sandbox").add("fake_single", "tests.fakes:SingleFactory")


def fake_task(**changes: object) -> Task:
    """A task on the fake sandbox whose answer is 42."""
    from agenthub.records import Message

    fields: dict[str, object] = {
        "id": "t",
        "suite": "fakes",
        "split": "train",
        "messages": (Message(role="user", content="?"),),
        "protocol": "fence_strict",
        "tools": (ToolUse(name="python", uses=_NAME),),
        "verifier": Verifier(checks=(Check(id="answer", uses="exact", args=frozen()),)),
        "limits": TaskLimits(max_turns=4),
        "target": "42",
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]
