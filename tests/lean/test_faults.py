"""What takes the compiler down is reported as what it was, and the next check is served."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agenthub.sandboxes.lean.box import Compiler
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.verdict import Reason

pytestmark = [pytest.mark.lean, pytest.mark.timeout(3600)]
FALSE = Challenge(statement="theorem target : (2 : Nat) + 2 = 5")
TRUE = Challenge(statement="theorem target : (2 : Nat) + 2 = 4")
SPIN = "partial def spin : IO Unit := do spin\n#eval spin"
DEEP = "partial def deep (n : Nat) : Nat := deep (n + 1) + 1\n#eval deep 0"
FLOOD = '#eval (do for _ in [0:100000000] do IO.eprintln "xxxxxxxxxxxxxxxx" : IO Unit)'
BOMB = "#eval (do let mut a : Array Nat := #[]; while true do a := a ++ a ++ #[1, 2, 3]; IO.println a.size : IO Unit)"
GONE = "#eval (IO.Process.exit 0 : IO Unit)\ntheorem target : (2 : Nat) + 2 = 5 := rfl"
FORGER = '#eval (do IO.FS.writeFile "Main.olean" "olean"; IO.Process.exit 0 : IO Unit)'


@pytest.mark.parametrize(
    ("source", "reasons"),
    [
        (SPIN, {Reason.TIMEOUT}),
        (DEEP, {Reason.CRASH, Reason.TIMEOUT, Reason.OOM, Reason.COMPILE_ERROR, Reason.MISSING_TARGET}),
        (FLOOD, {Reason.OUTPUT_LIMIT, Reason.TIMEOUT, Reason.OOM, Reason.COMPILE_ERROR, Reason.CRASH}),
        (BOMB, {Reason.OOM, Reason.TIMEOUT, Reason.CRASH, Reason.COMPILE_ERROR}),
        (GONE, {Reason.MISSING_TARGET, Reason.CRASH, Reason.COMPILE_ERROR}),
        (FORGER, {Reason.KERNEL_REJECT, Reason.MISSING_TARGET, Reason.COMPILE_ERROR, Reason.CRASH}),
    ],
    ids=["spin", "deep", "flood", "bomb", "exit", "forger"],
)
@pytest.mark.slow
async def test_a_hostile_file_is_contained_and_the_next_is_served(
    judge: Judge, source: str, reasons: set[Reason]
) -> None:
    verdict = await judge.judge(FALSE, source, seconds=40.0, meta=True)
    assert verdict.reason in reasons, verdict
    after = await judge.judge(TRUE, "theorem target : (2 : Nat) + 2 = 4 := rfl")
    assert after.accepted, after


async def test_a_run_that_is_late_is_told_so(judge: Judge) -> None:
    await judge.challenges.get(FALSE)
    verdict = await judge.judge(FALSE, "theorem target : (2 : Nat) + 2 = 5 := by decide", seconds=0.05)
    assert verdict.reason is Reason.TIMEOUT


async def test_a_killed_worker_is_no_verdict_and_the_next_is_served(judge: Judge) -> None:
    """Whoever runs beside the submission as the same user may kill the resident program: here the test does."""
    spawn = judge.compiler.isolation.spawn
    killed = 0

    class Killing:
        async def spawn(self, spec: object) -> object:
            nonlocal killed
            box = await spawn(spec)  # type: ignore[arg-type]
            if killed == 0:
                killed += 1
                box.discard()
            return box

    await judge.challenges.get(TRUE)
    compiler = Compiler(Killing(), judge.compiler.toolchain, limits=judge.compiler.limits, warm=0)  # type: ignore[arg-type]
    other = Judge(compiler, cache=judge.cache, seconds=600.0)
    first = await other.judge(TRUE, "theorem target : (2 : Nat) + 2 = 4 := rfl")
    second = await other.judge(TRUE, "theorem target : (2 : Nat) + 2 = 4 := rfl")
    assert killed == 1 and first.reason in (Reason.CRASH, Reason.OK) and second.accepted, (first, second)


async def test_the_output_of_a_run_is_capped(judge: Judge) -> None:
    limits = replace(judge.compiler.limits, output_bytes=512)
    compiler = Compiler(judge.compiler.isolation, judge.compiler.toolchain, limits=limits, warm=0)
    ran = await compiler.run({"Main.lean": b"#check Nat\n" * 200}, ["-j2", "--json", "Main.lean"], seconds=600.0)
    assert ran.flood and len(ran.out) <= 512


@pytest.mark.slow
async def test_callers_that_leave_do_not_take_others_with_them(judge: Judge) -> None:
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(judge.judge(TRUE, "theorem target : (2 : Nat) + 2 = 4 := rfl"))
        staying = group.create_task(judge.judge(TRUE, "theorem target : (2 : Nat) + 2 = 4 := by decide"))
        await asyncio.sleep(1.0)
        leaving.cancel()
    assert staying.result().accepted
