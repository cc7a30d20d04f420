"""The factory of Lean sandboxes: `lean.check` and `lean.run` for a policy, and the judge for rewards."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agenthub.errors import ForkRefused, UserError
from agenthub.isolation import Isolation, Limits
from agenthub.records import Call, Observation, Text, frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, Plain, ProgramRun, SandboxSpec, ToolSpec
from agenthub.sandboxes.fileless import NoFiles
from agenthub.sandboxes.lean import gate
from agenthub.sandboxes.lean.box import Compiler
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.feedback import goals, message_of, messages, shown
from agenthub.sandboxes.lean.judge import Judge, failure, limits_of
from agenthub.sandboxes.lean.toolchain import find, missing
from agenthub.sandboxes.lean.verdict import Reason

__all__ = ["LeanJudgeBox", "LeanSandbox", "LeanSession"]

LEAST_MB = 3072
"""MiB of a compiler's box: the WebAssembly build alone takes more than 1 GiB to start."""
_SHOWN_CHARS = 8000
_SKETCH = re.compile(r"<sketch>(.*?)</sketch>", re.DOTALL)
_FENCE = re.compile(r"\A\s*```(?:lean4?|lean)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)

_CODE = frozen(
    {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "Lean 4."}},
        "required": ["code"],
        "additionalProperties": False,
    }
)
_CHECK = ToolSpec(
    name="check",
    description=(
        "Compiles a proof, or a sketch of one with `sorry` in it, and shows errors with their places, the goals at the "
        "first error, and warnings. In a task with a body, the code is what comes after `:= by`. What it says is no "
        "verdict."
    ),
    parameters=_CODE,
)
_RUN = ToolSpec(
    name="run",
    description="Compiles definitions and lemmas behind the task's own, and shows what Lean says of them.",
    parameters=_CODE,
)


class LeanSession(NoFiles):
    """A `Sandbox` without state: every call is a fresh compiler."""

    def __init__(self, judge: Judge, challenge: Challenge | None, seconds: float) -> None:
        self._judge, self._challenge, self._seconds = judge, challenge, seconds

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """As Sandbox.call says."""
        code = call.arguments.get("code")
        if not isinstance(code, str) or "\0" in code:
            return _said(call, "argument 'code' must be text without NUL\n", failed=True, channel="notice")
        source, above = self._source(call.tool, unwrapped(code))
        refused = gate.refusal(source, limits_of(self._challenge or _NO_CHALLENGE))
        if refused is not None:
            return _said(call, f"refused: {refused}\n", failed=True)
        challenge = self._challenge or _NO_CHALLENGE
        ran = await self._judge.compile(source, challenge, min(timeout_s, self._seconds))
        told = messages(ran, above=above)
        failed = failure(ran)
        if failed is not None and failed[0] not in (Reason.COMPILE_ERROR, Reason.MISSING_TARGET):
            return _said(call, f"{failed[0]}: {failed[1]}\n", failed=True)
        text = shown(told, most_chars=_SHOWN_CHARS)
        left = goals(told)
        if left:
            text += f"\ngoals at the first error:\n{left[:_SHOWN_CHARS]}"
        return _said(call, (text or "no errors, no warnings") + "\n", failed=failed is not None)

    def _source(self, tool: str, code: str) -> tuple[str, int]:
        """The file of a call, and how many of its lines are not the policy's."""
        challenge = self._challenge
        if challenge is None:
            return code, 0
        if tool == _RUN.name:
            above = "\n".join(part.rstrip() for part in (challenge.header, challenge.definitions) if part.strip())
            return f"{above}\n{code}" if above else code, above.count("\n") + 1 if above else 0
        source = challenge.file(code)
        return source, source.count("\n") - code.strip("\n").count("\n") - 1 if challenge.mode == "body" else 0

    async def fork(self, n: int) -> list[LeanSession]:
        """Not asked for: there is no state, so a fresh session is a copy."""
        raise ForkRefused("a Lean sandbox has no state; start another")

    async def close(self) -> None:
        """Nothing is held between calls."""


class LeanJudgeBox:
    """A `CodeBox` whose `run` judges a submission: the value is the verdict as plain values. Its `program` only
    compiles a file, as `Programs` says, and tells the compiler's messages as a JSON list."""

    def __init__(self, judge: Judge, challenge: Challenge | None) -> None:
        self._judge, self._challenge = judge, challenge

    async def run(self, source: str, *, stdin: bytes, timeout_s: float) -> tuple[Plain, bytes]:
        """The verdict on `source`. Raises UserError where the challenge does not compile."""
        del stdin
        if self._challenge is None:
            raise UserError("nothing is to be proved: the Lean sandbox has no challenge in its config")
        verdict = await self._judge.judge(self._challenge, unwrapped(source), seconds=timeout_s)
        return Plain(value=verdict.plain()), b""

    async def program(self, source: str, *, stdin: bytes, compile_s: float, run_s: float) -> dict[str, ProgramRun]:
        """As Programs.program says; the one stage is `compile`, and a file that the gate refuses is an error of it."""
        del stdin, run_s
        began = time.perf_counter()
        refused = gate.refusal(source, gate.Limits(hash_commands=True))
        if refused is not None:
            return {"compile": _stage(1, [message_of(refused)], "", began)}
        ran = await self._judge.compile(source, self._challenge or _NO_CHALLENGE, compile_s)
        failed = failure(ran)
        why = "" if failed is None or failed[0] in (Reason.COMPILE_ERROR, Reason.MISSING_TARGET) else failed[1]
        code = None if ran.late else 0 if failed is None else 1
        return {"compile": _stage(code, messages(ran), why, began)}

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Refused."""
        raise UserError("a Lean sandbox keeps no files")

    async def write_file(self, path: str, data: bytes) -> None:
        """Refused."""
        raise UserError("a Lean sandbox keeps no files")

    async def load(self, source: str, *, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the Lean sandbox judges proofs; use the check `lean`")

    async def invoke(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the Lean sandbox judges proofs; use the check `lean`")

    async def drive(self, name: str, *, candidate: Any, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the Lean sandbox judges proofs; use the check `lean`")

    async def close(self) -> None:
        """Nothing is held."""


class LeanSandbox:
    """A `SandboxFactory`. Every box is of the jail: a compiler runs what it compiles."""

    tools: tuple[ToolSpec, ...] = (_CHECK, _RUN)

    def __init__(self, isolation: str | Isolation = "jail", *, warm: int = 1, seconds: float = 120.0) -> None:
        """
        Args:
            warm: compilers that wait, loaded; each is used once.
            seconds: of one compile at most.
        """
        self._made = isolation
        self._warm, self._seconds = warm, seconds
        self._isolation: Isolation | None = None
        self._judges: dict[int, Judge] = {}
        self._lock = asyncio.Lock()

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do."""
        return Capabilities(persistent=False, deterministic=True, fork="stateless")

    @staticmethod
    def lacking() -> str:
        """A toolchain, where there is none."""
        return missing() or ""

    async def open(self) -> None:
        """Find the toolchain and open the isolation. Raises as SandboxFactory.open says."""
        if isinstance(self._made, str) and self._made != "jail":
            raise UserError(f"the Lean sandbox runs in the jail; isolation {self._made!r} has no Lean image")
        await asyncio.to_thread(find)
        made = registry("isolation").load(self._made)() if isinstance(self._made, str) else self._made
        await made.open()
        self._isolation = made

    async def start(self, spec: SandboxSpec) -> LeanSession:
        """A fresh sandbox; `config` is the challenge. Raises as SandboxFactory.start says."""
        challenge = Challenge.of(spec.params) if spec.params else None
        return LeanSession(await self.judge(spec.limits), challenge, self._seconds)

    async def code_box(self, spec: SandboxSpec) -> LeanJudgeBox:
        """The judge of the challenge in `config`. Raises as SandboxFactory.code_box says."""
        challenge = Challenge.of(spec.params) if spec.params else None
        return LeanJudgeBox(await self.judge(spec.limits), challenge)

    async def judge(self, limits: Limits | None = None) -> Judge:
        """The judge whose compilers have these limits. Raises UserError where it is not open."""
        if self._isolation is None:
            raise UserError("the Lean sandbox is not open")
        memory = max(LEAST_MB, limits.memory_mb if limits else 0)
        async with self._lock:
            if memory not in self._judges:
                wanted = dataclasses.replace(limits or Limits(), memory_mb=memory, open_files=1024, pids=64)
                wanted = dataclasses.replace(wanted, cpus=float(min(2, os.cpu_count() or 1)))
                compiler = Compiler(self._isolation, find(), limits=wanted, warm=self._warm)
                self._judges[memory] = Judge(compiler, seconds=self._seconds)
            return self._judges[memory]

    async def close(self) -> None:
        """Free everything that was started."""
        while self._judges:
            _, judge = self._judges.popitem()
            await judge.compiler.close()
        if self._isolation is not None:
            await self._isolation.close()
            self._isolation = None


_NO_CHALLENGE = Challenge(statement="theorem none : True")


def _stage(code: int | None, messages: list[dict[str, Any]], why: str, began: float) -> ProgramRun:
    out = json.dumps(messages).encode()
    return ProgramRun(code=code, out=out, err=why.encode(), seconds=time.perf_counter() - began)


def unwrapped(code: str) -> str:
    """The Lean of an answer: the last sketch in it, or what is in the one fence around it, or all of it."""
    sketches: list[str] = _SKETCH.findall(code)
    if sketches:
        code = sketches[-1]
    found = _FENCE.match(code)
    return found[1] if found else code


def _said(call: Call, text: str, *, failed: bool, channel: str = "output") -> Observation:
    return Observation(call_id=call.id, parts=(Text(text=text, channel=channel),), failed=failed)
