"""Costs of judging Lean proofs: checks a minute cold and with compilers that wait, the judge apart from Lean.

    python benchmarks/lean.py [--quick]

Prints one JSON object a line: {"bench", "case", "metric", "value", "unit"}. `cold` starts a compiler for each check;
`warm` takes one that was started ahead, has the library imported and is used once; one check after the other, in the
same run, and the wait for the next one to be ready is counted in neither. `stream_cold` and `stream_warm` are checks
that are asked for all at once, so that starting the next ones ahead is counted. `judge` is what our own steps take of a
check with the library's index warm, apart from Lean's own time: `gate_ms` the lexer, `read_ms` the reader, `judge_ms`
both; `judge_60` the same on sixty omega theorems. `index` is that index, built and loaded. `replay_1` and `replay_16`
are the kernel's process for so many submissions that share a start; `replay_1_warm` has it started ahead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agenthub.isolation import Limits  # noqa: E402 - the folder must be on the path first
from agenthub.sandboxes.isolation.jail import Jail  # noqa: E402
from agenthub.sandboxes.lean import gate, index, toolchain  # noqa: E402
from agenthub.sandboxes.lean.box import Compiler  # noqa: E402
from agenthub.sandboxes.lean.challenge import Challenge  # noqa: E402
from agenthub.sandboxes.lean.judge import Judge, limits_of  # noqa: E402
from agenthub.sandboxes.lean.read import Reading, read  # noqa: E402
from agenthub.sandboxes.lean.text import compiled  # noqa: E402
from agenthub.sandboxes.lean.toolchain import TESTED, Toolchain  # noqa: E402
from agenthub.sandboxes.lean.verdict import Reason  # noqa: E402

SUM = Challenge(statement="theorem target (a b : Nat) : a + b = b + a", mode="body")
MANY = 60


def row(case: str, metric: str, value: float, unit: str, quick: bool) -> None:
    """Print one measurement."""
    record = {"bench": "lean", "case": case, "metric": metric, "value": round(value, 3), "unit": unit}
    print(json.dumps(record | ({"quick": True} if quick else {})), flush=True)


def compiler(jail: Jail, found: Toolchain, warm: int) -> Compiler:
    """Boxes with `warm` compilers started ahead."""
    limits = Limits(memory_mb=3072, pids=64, cpus=float(min(2, os.cpu_count() or 1)), open_files=1024)
    return Compiler(jail, found, limits=limits, warm=warm)


async def check(made: Compiler) -> float:
    """Seconds of one compile."""
    began = time.perf_counter()
    ran = await compiled(made, SUM.file("omega"), heartbeats=SUM.heartbeats, seconds=600.0)
    if ran.code != 0:
        raise SystemExit(f"Lean failed: {ran.out[-500:]}")
    return time.perf_counter() - began


async def checks(case: str, made: Compiler, count: int, wait_s: float, quick: bool) -> float:
    """Compiles one after the other, then as many all at once. Returns seconds of one.

    Args:
        wait_s: before each, in which the next compiler gets ready.
    """
    seconds = []
    if made.warm:
        # The first one finds none that waits.
        await check(made)
    for _ in range(count):
        await asyncio.sleep(wait_s)
        seconds.append(await check(made))
    row(case, "checks_per_min", 60 / statistics.median(seconds), "1/min", quick)
    row(case, "p50_ms", statistics.median(seconds) * 1000, "ms", quick)
    await asyncio.sleep(wait_s)
    began = time.perf_counter()
    await asyncio.gather(*(check(made) for _ in range(2 * count)))
    row(f"stream_{case}", "checks_per_min", 2 * count * 60 / (time.perf_counter() - began), "1/min", quick)
    return statistics.median(seconds)


async def steps(judge: Judge, quick: bool) -> Reading:
    """The judge's own steps on a small proof, whose reading it returns, and on sixty omega theorems."""
    found = Reading(reason=Reason.INFRA_ERROR)
    helpers = "\n".join(
        f"theorem h{i} (a b : Nat) (h : a < b) : a + {i} < b + {i + 1} := by omega" for i in range(MANY)
    )
    for case, body, above in (("judge", "omega", ""), ("judge_60", "omega", helpers)):
        challenge = Challenge(statement=SUM.statement)
        uses = f"have := @h{MANY - 1}; {body}" if above else body
        source = f"{above}\n{challenge.statement} := by {uses}"
        asked = await judge.challenges.get(challenge)
        began = time.perf_counter()
        ran = await judge.compile(source, challenge, 600.0)
        row(case, "lean_ms", (time.perf_counter() - began) * 1000, "ms", quick)
        imported = index.load(judge.compiler.toolchain, [], judge.cache)
        pointer = judge.compiler.toolchain.pointer_bytes
        times: list[tuple[float, float]] = []
        reading = Reading(reason=Reason.INFRA_ERROR)
        for _ in range(5):
            began = time.perf_counter()
            refused = gate.refusal(source, limits_of(challenge))
            read_from = time.perf_counter()
            reading = read(
                asked,
                ran.parts,
                challenge.names,
                challenge.permitted_axioms,
                imported,
                pointer=pointer,
                versions=TESTED,
            )
            times.append((read_from - began, time.perf_counter() - read_from))
            if refused or reading.reason is not Reason.OK:
                raise SystemExit(f"not accepted: {refused or reading.detail}")
        for metric, taken in (
            ("gate_ms", [gated for gated, _ in times]),
            ("read_ms", [spent for _, spent in times]),
            ("judge_ms", [sum(both) for both in times]),
        ):
            row(case, metric, statistics.median(taken) * 1000, "ms", quick)
        if case == "judge":
            found = reading
    return found


async def replays(judge: Judge, case: str, count: int, reading: Reading, quick: bool) -> None:
    """The kernel's process, for submissions that share a start."""
    starts, began = judge.replayer.starts, time.perf_counter()
    said = await asyncio.gather(*(judge.replayer.replay(reading.numbers, reading.imports) for _ in range(count)))
    spent = time.perf_counter() - began
    if any(one is not Reason.OK for one in said):
        raise SystemExit(f"the kernel said {said}")
    row(case, "per_submission_ms", spent * 1000 / count, "ms", quick)
    row(case, "starts", judge.replayer.starts - starts, "processes", quick)


async def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer checks, for a look")
    quick = parser.parse_args().quick
    missing = toolchain.missing()
    if missing is not None:
        print(f"lean: skipped: {missing}", file=sys.stderr)
        return
    jail, found = Jail(), toolchain.find()
    await jail.open()
    count = 2 if quick else 10
    with tempfile.TemporaryDirectory() as folder:
        for metric in ("build_s", "load_s"):
            index._loaded.clear()
            began = time.perf_counter()
            index.load(found, [], Path(folder))
            row("index", metric, time.perf_counter() - began, "s", quick)
        cold, warm = compiler(jail, found, 0), compiler(jail, found, 1)
        try:
            # What waits is ready after the time of a start, with some to spare.
            wait_s = 1.0 + 1.5 * await checks("cold", cold, count, 0.0, quick)
            if warm.warm:
                await checks("warm", warm, count, wait_s, quick)
            judge = Judge(cold, cache=Path(folder))
            reading = await steps(judge, quick)
            for replayed in (1, 16):
                await replays(judge, f"replay_{replayed}", replayed, reading, quick)
            if warm.warm:
                ready = Judge(warm, cache=Path(folder))
                await ready.replayer.replay(reading.numbers, reading.imports)
                await asyncio.sleep(wait_s)
                await replays(ready, "replay_1_warm", 1, reading, quick)
        finally:
            await cold.close()
            await warm.close()
            await jail.close()


if __name__ == "__main__":
    asyncio.run(main())
