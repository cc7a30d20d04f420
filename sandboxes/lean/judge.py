"""The judge: refuse, read, replay. None of the steps believes the process that ran the submission."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from dataclasses import replace
from pathlib import Path

from agenthub.errors import HostFault
from agenthub.sandboxes.lean import gate, index
from agenthub.sandboxes.lean.asked import Challenges
from agenthub.sandboxes.lean.box import Compiler, Ran
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.feedback import messages
from agenthub.sandboxes.lean.read import read
from agenthub.sandboxes.lean.replay import Replayer
from agenthub.sandboxes.lean.text import compiled
from agenthub.sandboxes.lean.toolchain import TESTED
from agenthub.sandboxes.lean.verdict import Assurance, Reason, Verdict

__all__ = ["Judge", "default_cache", "failure", "limits_of"]

_NO_MEMORY = re.compile(r"out of memory|cannot enlarge memory|bad_alloc|excessive memory|memory allocation", re.I)
_TRIES = 2


def default_cache() -> Path:
    """Where indexes and compiled challenges are kept: `AGENTHUB_LEAN_CACHE`, or the user's cache."""
    given = os.environ.get("AGENTHUB_LEAN_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "agenthub" / "lean-judge"


class Judge:
    """Verdicts over one pool of boxes. Safe for many callers at once; no verdict depends on another."""

    def __init__(self, compiler: Compiler, *, cache: Path | None = None, seconds: float = 120.0) -> None:
        """`seconds`: of one compile, and the base of a replay."""
        self.compiler, self.seconds = compiler, seconds
        self.cache = cache or default_cache()
        self.challenges = Challenges(compiler, self.cache)
        self._compiling = 0
        self.replayer = Replayer(compiler, seconds=seconds, more=lambda: self._compiling > 0)

    async def judge(
        self, challenge: Challenge, submission: str, *, seconds: float | None = None, meta: bool = False
    ) -> Verdict:
        """Judge one submission; only an infra_error is tried again.

        Args:
            seconds: of the compile; the judge's own where None.
            meta: let meta-programs through the first step.

        Raises:
            UserError: the challenge itself does not compile.
        """
        verdict = Verdict(reason=Reason.INFRA_ERROR)
        for _ in range(_TRIES):
            try:
                verdict = await self._once(challenge, submission, seconds or self.seconds, meta)
            except HostFault as fault:
                verdict = Verdict(reason=Reason.INFRA_ERROR, detail=str(fault))
            if verdict.reason is not Reason.INFRA_ERROR:
                break
        return replace(
            verdict,
            challenge_sha256=challenge.digest(),
            submission_sha256=hashlib.sha256(submission.encode("utf-8", "surrogatepass")).hexdigest(),
            toolchain=self.compiler.toolchain.identity,
        )

    async def _once(self, challenge: Challenge, submission: str, seconds: float, meta: bool) -> Verdict:
        times: dict[str, float] = {}
        began = time.perf_counter()
        source = challenge.file(submission)
        refused = gate.refusal(source, limits_of(challenge, meta=meta))
        times["gate"] = time.perf_counter() - began
        if refused is not None:
            return Verdict(reason=Reason.FORBIDDEN_COMMAND, detail=refused, seconds=times)
        asked = await self.challenges.get(challenge)
        began = time.perf_counter()
        self._compiling += 1
        try:
            ran = await self.compile(source, challenge, seconds)
        finally:
            self._compiling -= 1
        times["compile"] = time.perf_counter() - began
        told = tuple(messages(ran))
        failed = failure(ran)
        if failed is not None:
            return Verdict(reason=failed[0], detail=failed[1], messages=told, seconds=times)
        toolchain = self.compiler.toolchain
        roots = gate.imports_of(source)
        imported = await asyncio.to_thread(index.load, toolchain, roots, self.cache)
        began = time.perf_counter()
        reading = await asyncio.to_thread(
            read,
            asked,
            ran.parts,
            challenge.names,
            challenge.permitted_axioms,
            imported,
            pointer=toolchain.pointer_bytes,
            versions=TESTED,
            roots=roots,
        )
        times["read"] = time.perf_counter() - began
        verdict = Verdict(
            reason=reading.reason,
            assurance=Assurance.READ,
            detail=reading.detail,
            axioms=reading.axioms,
            messages=told,
            seconds=times,
        )
        if reading.reason is not Reason.OK:
            return verdict
        began = time.perf_counter()
        said = await self.replayer.replay(reading.numbers, reading.imports)
        times["replay"] = time.perf_counter() - began
        if said is Reason.OK:
            return replace(verdict, assurance=Assurance.REPLAYED)
        return replace(verdict, reason=said, detail="the kernel did not take it")

    async def compile(self, source: str, challenge: Challenge, seconds: float) -> Ran:
        """Compile a file in a box of its own. Raises HostFault."""
        return await compiled(self.compiler, source, heartbeats=challenge.heartbeats, seconds=seconds)


def limits_of(challenge: Challenge, *, meta: bool = False) -> gate.Limits:
    """What the first step lets through for a challenge."""
    return gate.Limits(
        imports=frozenset({"Init", "Std", *challenge.imports}),
        heartbeats=max(1_000_000, challenge.heartbeats),
        also=gate.words_of(f"{challenge.header}\n{challenge.definitions}"),
        meta=meta,
    )


def failure(ran: Ran) -> tuple[Reason, str] | None:
    """Why a run gives nothing to read; None where it does. What a run says can only count against it."""
    if ran.late:
        return Reason.TIMEOUT, "the compiler's time was up"
    if ran.flood:
        return Reason.OUTPUT_LIMIT, "it wrote too much"
    if ran.oom:
        return Reason.OOM, "its memory was used up"
    if ran.lost or ran.code is None:
        return Reason.CRASH, ran.lost or "the compiler was killed"
    if ran.code != 0:
        first = next((one for one in messages(ran) if one["severity"] == "error"), None)
        if first is not None:
            return Reason.COMPILE_ERROR, f"{first['line']}:{first['col']}: {first['message'].splitlines()[0][:200]}"
        if _NO_MEMORY.search(ran.out):
            return Reason.OOM, "its memory was used up"
        return Reason.CRASH, f"the compiler ended with status {ran.code}"
    return None if ran.parts else (Reason.MISSING_TARGET, "nothing was compiled")
