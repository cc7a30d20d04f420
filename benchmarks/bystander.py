"""What a neighbour's attack costs an episode that has nothing to do with it: its p95, before and during.

    python benchmarks/bystander.py [--quick]

The attacks are those of tests/security. Each is played again and again in fresh boxes, one after the other, while a
bystander makes a turn every few milliseconds. One JSON object a line; `ratio` is the p95 before over the p95 during.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agenthub.errors import BoxLost  # noqa: E402 - the folder must be on the path first
from agenthub.isolation import Limits  # noqa: E402
from agenthub.records import Call  # noqa: E402
from agenthub.sandbox import Sandbox, SandboxSpec  # noqa: E402
from agenthub.sandboxes.python.sandbox import PythonSandbox  # noqa: E402
from tests.security.payloads import ATTACKS  # noqa: E402

NAMES = (
    "01_fork_bomb",
    "02_thread_bomb",
    "03_memory_bomb_bytes",
    "06_tmpfs_fill_one_file",
    "14_cpu_spin_threads",
    "22_infinite_loop_c",
    "58_stdout_flood",
    "63_background_after_turn",
)
LIMITS = Limits(memory_mb=128, pids=24, disk_mb=8, files=512)
_PAUSE_S = 0.005
_ATTACKERS = 1


async def turns(bystander: Sandbox, seconds: float) -> list[float]:
    """Milliseconds of each of its turns."""
    call = Call(id="0.0", tool="python", arguments={"code": "1 + 1"})
    spent: list[float] = []
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        await bystander.call(call, timeout_s=30)
        spent.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_PAUSE_S)
    return spent


async def attack(factory: PythonSandbox, code: str, timeout_s: float) -> None:
    """One attack after the other, until cancelled."""
    call = Call(id="0.0", tool="python", arguments={"code": code.replace("{port}", "1")})
    while True:
        victim = await factory.start(SandboxSpec(limits=LIMITS, params={"grace_s": 0.3}))
        try:
            with suppress(BoxLost):
                await victim.call(call, timeout_s=timeout_s)
        finally:
            await victim.close()


async def during(factory: PythonSandbox, bystander: Sandbox, name: str, seconds: float) -> list[float]:
    """The bystander's turns while attackers are at work."""
    chosen = next(it for it in ATTACKS if it.name == name)
    attackers = [asyncio.create_task(attack(factory, chosen.code, chosen.timeout_s)) for _ in range(_ATTACKERS)]
    try:
        await asyncio.sleep(0.2)
        return await turns(bystander, seconds)
    finally:
        for task in attackers:
            task.cancel()
        await asyncio.wait(attackers)


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


async def run(*, quick: bool) -> None:
    """Every case."""
    seconds = 2.0 if quick else 10.0
    factory = PythonSandbox()
    await factory.open()
    try:
        bystander = await factory.start(SandboxSpec(limits=LIMITS))
        await turns(bystander, 0.5)
        before = p95(await turns(bystander, seconds))
        _row("alone", before, quick)
        for name in NAMES:
            now = p95(await during(factory, bystander, name, seconds))
            _row(name, now, quick, peer="before the attack", ratio=round(before / now, 3))
    finally:
        await factory.close()
    print(f"bystander: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)


def _row(case: str, value: float, quick: bool, **more: object) -> None:
    row: dict[str, object] = {"bench": "bystander", "case": case, "metric": "p95_ms", "value": round(value, 3)}
    print(json.dumps(row | {"unit": "ms"} | more | ({"quick": True} if quick else {})), flush=True)


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seconds a case")
    asyncio.run(run(quick=parser.parse_args().quick))


if __name__ == "__main__":
    main()
