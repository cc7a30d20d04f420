"""The factory of language sandboxes: a program is compiled and run in a box, as a tool and for grading."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agenthub.errors import BoxLost, ForkRefused, UserError
from agenthub.isolation import Box, BoxSpec, Isolation
from agenthub.records import Call, Observation, Text, frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, Plain, ProgramRun, SandboxSpec, ToolSpec
from agenthub.sandboxes.languages import guest, store
from agenthub.sandboxes.languages.channel import ask
from agenthub.sandboxes.languages.language import Language

__all__ = ["LanguageBox", "LanguageSandbox", "LanguageSession"]

_GRACE_S = 2.0
_SHOWN_BYTES = 16384

_TOOL = ToolSpec(
    name="run_program",
    description=(
        "Compiles and runs a whole program on the given standard input, and shows what it writes. Files in the working "
        "folder last for the episode. No network."
    ),
    parameters=frozen(
        {
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "The program's source."},
                "stdin": {"type": "string", "description": "What the program reads; empty where absent."},
            },
            "required": ["code"],
            "additionalProperties": False,
        }
    ),
)


class LanguageBox:
    """A `CodeBox` for whole programs."""

    def __init__(self, box: Box, language: Language, output_bytes: int) -> None:
        self.box = box
        self._language, self._output_bytes = language, output_bytes
        self._asked = 0

    async def run(self, source: str, *, stdin: bytes, timeout_s: float) -> tuple[Plain, bytes]:
        """Compile and run a program on `stdin`: its exit status, and its standard output."""
        try:
            done = await self.outcome(source, stdin, timeout_s)
        except BoxLost as lost:
            return Plain(error=str(lost), lost=True), b""
        out, err = (base64.b64decode(done[name]) for name in ("out", "err"))
        if done["stage"] != "run":
            first = (err or out).decode(errors="backslashreplace").strip().splitlines()
            return Plain(error=f"the program does not compile: {first[0] if first else 'no reason given'}"), b""
        if done["code"] is None:
            return Plain(error="the program's time was up", lost=True), out
        return Plain(value=int(done["code"])), out

    async def program(self, source: str, *, stdin: bytes, compile_s: float, run_s: float) -> dict[str, ProgramRun]:
        """As Programs.program says; the language's own limits hold too."""
        done = await self.outcome(source, stdin, run_s, compile_s=compile_s)
        runs = {"compile": done.get("compiled"), done["stage"]: done}
        return {stage: _program_run(row) for stage, row in runs.items() if row is not None}

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """As Programs.read_file says."""
        return await self.box.read_file(path, max_bytes=max_bytes)

    async def write_file(self, path: str, data: bytes) -> None:
        """As Programs.write_file says."""
        await self.box.write_file(path, data)

    async def outcome(
        self, source: str, stdin: bytes, timeout_s: float, *, compile_s: float | None = None
    ) -> dict[str, Any]:
        """The resident program's answer; compiling has `compile_s` of its own. Raises as `channel.ask` does."""
        language = self._language
        self._asked += 1
        compiling = min(language.compile_seconds, compile_s or timeout_s) if language.compile else 0.0
        running = min(language.run_seconds, timeout_s)
        message = {
            "id": self._asked,
            "path": language.source,
            "source": source,
            "compile": language.command(language.compile) if language.compile else None,
            "run": language.command(language.run),
            "stdin": base64.b64encode(stdin).decode("ascii"),
            "compile_s": compiling,
            "run_s": running,
            "output_bytes": self._output_bytes,
        }
        return await ask(self.box, message, timeout_s=compiling + running + _GRACE_S)

    async def load(self, source: str, *, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the language sandbox runs whole programs; use io_cases")

    async def invoke(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the language sandbox runs whole programs; use io_cases")

    async def drive(self, name: str, *, candidate: Any, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the language sandbox runs whole programs; use io_cases")

    async def close(self) -> None:
        """Free the box."""
        self.box.discard()


class LanguageSession:
    """A `Sandbox`: the tool `run_program`."""

    def __init__(self, box: LanguageBox) -> None:
        self._box = box

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """As Sandbox.call says."""
        code, stdin = call.arguments.get("code"), call.arguments.get("stdin", "")
        if not isinstance(code, str) or not isinstance(stdin, str):
            notice = Text(text="arguments 'code' and 'stdin' must be text\n", channel="notice")
            return Observation(call_id=call.id, parts=(notice,), failed=True)
        done = await self._box.outcome(code, stdin.encode(errors="backslashreplace"), timeout_s)
        shown = [(base64.b64decode(done[name]), channel) for name, channel in (("out", "output"), ("err", "error"))]
        parts = [Text(text=_text(data), channel=channel) for data, channel in shown if data]
        if done["code"] is None:
            parts.append(Text(text=f"{done['stage']}: the time was up\n", channel="notice"))
        elif done["code"] != 0:
            parts.append(Text(text=f"{done['stage']}: exit status {done['code']}\n", channel="notice"))
        cut = any(len(data) > _SHOWN_BYTES for data, _ in shown)
        return Observation(call_id=call.id, parts=tuple(parts), failed=done["code"] != 0, truncated=cut)

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """As Sandbox.read_file says."""
        return await self._box.box.read_file(path, max_bytes=max_bytes)

    async def write_file(self, path: str, data: bytes) -> None:
        """As Sandbox.write_file says."""
        await self._box.box.write_file(path, data)

    async def list_files(self) -> list[str]:
        """As Sandbox.list_files says."""
        return await self._box.box.list_files(most=10_000)

    async def fork(self, n: int) -> list[LanguageSession]:
        """Refused: copies are made by running the programs again."""
        raise ForkRefused("a language sandbox is copied by running its programs again")

    async def close(self) -> None:
        """Free the box."""
        await self._box.close()


class LanguageSandbox:
    """A `SandboxFactory`. A task says which isolation it runs on; the isolations are opened on first use."""

    tools: tuple[ToolSpec, ...] = (_TOOL,)

    def __init__(self, isolation: str = "jail") -> None:
        self._own = isolation
        self._isolations: dict[str, Isolation] = {}
        self._lock = asyncio.Lock()

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do."""
        return Capabilities(persistent=False, deterministic=False, fork="replay")

    async def open(self) -> None:
        """Nothing is shared before a task names its isolation."""

    async def start(self, spec: SandboxSpec) -> LanguageSession:
        """A fresh sandbox with the spec's files. Raises as SandboxFactory.start says."""
        box = await self._box(spec)
        try:
            for path, data in spec.files.items():
                await box.box.write_file(path, data)
        except BaseException:
            await box.close()
            raise
        return LanguageSession(box)

    async def code_box(self, spec: SandboxSpec) -> LanguageBox:
        """A fresh box for one program. Raises as SandboxFactory.code_box says."""
        return await self._box(spec)

    async def close(self) -> None:
        """Free everything that was started."""
        while self._isolations:
            _, isolation = self._isolations.popitem()
            await isolation.close()

    async def _box(self, spec: SandboxSpec) -> LanguageBox:
        spec = dataclasses.replace(spec, isolation=spec.isolation or self._own)
        language = Language.of(spec.params)
        wanted = _wanted(language, spec, ("/usr/bin/python3", "-I", "-c", _guest()))
        isolation = await self._isolation(spec.isolation)
        return LanguageBox(await isolation.spawn(wanted), language, spec.limits.output_bytes)

    async def _isolation(self, name: str) -> Isolation:
        async with self._lock:
            if name not in self._isolations:
                made: Isolation = registry("isolation").load(name)()
                await made.open()
                self._isolations[name] = made
            return self._isolations[name]


@functools.cache
def _guest() -> str:
    return Path(guest.__file__).read_text(encoding="utf-8")


def _wanted(language: Language, spec: SandboxSpec, argv: tuple[str, ...]) -> BoxSpec:
    """The box of a language. Raises UserError where the language is not there."""
    if language.image and spec.isolation == "jail":
        raise UserError(
            f"language {language.id!r} comes in the container image {language.image!r}; the jail needs `install:`"
        )
    if language.image:
        return BoxSpec(image=language.image, argv=argv, limits=spec.limits)
    if spec.isolation != "jail":
        return BoxSpec(image=store.image_of(language.install), argv=argv, limits=spec.limits)
    root = store.root_of(language.install)
    if root is None:
        raise UserError(
            f"language {language.id!r} is not installed here; `agenthub images build SUITE` installs what a suite names"
        )
    return BoxSpec(image="python", argv=argv, mounts=store.mounts_of(root), limits=spec.limits)


def _program_run(row: Mapping[str, Any]) -> ProgramRun:
    out, err = (base64.b64decode(row[name]) for name in ("out", "err"))
    return ProgramRun(code=row["code"], out=out, err=err, seconds=float(row.get("seconds", 0.0)))


def _text(data: bytes) -> str:
    """Head and tail, as text that acts on nothing."""
    half = _SHOWN_BYTES // 2
    if len(data) > _SHOWN_BYTES:
        cut = f"\n... {len(data) - 2 * half} bytes cut ...\n".encode()
        data = data[:half] + cut + data[-half:]
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
