"""Costs of the Python sandbox inside the hub: a turn, a start from cold and from the pool, an idle episode's memory.

    python benchmarks/python_sandbox.py [--quick]

Prints one JSON object a line: {"bench", "case", "metric", "value", "unit"}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agenthub.isolation import BoxSpec
from agenthub.records import Call
from agenthub.sandbox import Sandbox, SandboxSpec
from agenthub.sandboxes.isolation.jail import Jail
from agenthub.sandboxes.python.sandbox import PythonSandbox

_REFILL_S = 0.03
"""Between two starts from the pool, so that it is the pool that is measured."""


def _row(case: str, metric: str, value: float, unit: str, *, quick: bool) -> None:
    row: dict[str, object] = {"bench": "python_sandbox", "case": case, "metric": metric}
    row |= {"value": round(value, 4), "unit": unit}
    print(json.dumps(row | ({"quick": True} if quick else {})), flush=True)


async def _p50_ms(act: Callable[[], Awaitable[object]], times: int, pause_s: float = 0.0) -> float:
    """Median milliseconds of an act."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        await act()
        spent.append(time.perf_counter() - began)
        if pause_s:
            await asyncio.sleep(pause_s)
    return statistics.median(spent) * 1000


async def _turn(factory: PythonSandbox, times: int) -> float:
    sandbox = await factory.start(SandboxSpec())
    call = Call(id="0.0", tool="python", arguments={"code": "1 + 1"})
    try:
        await sandbox.call(call, timeout_s=10)
        return await _p50_ms(lambda: sandbox.call(call, timeout_s=10), times)
    finally:
        await sandbox.close()


async def _turns_at_once(factory: PythonSandbox, boxes: int, turns: int) -> float:
    """Turns a second of many live episodes at once."""
    live = [await factory.start(SandboxSpec()) for _ in range(boxes)]
    call = Call(id="0.0", tool="python", arguments={"code": "1 + 1"})

    async def play(sandbox: Sandbox) -> None:
        for _ in range(turns):
            await sandbox.call(call, timeout_s=30)

    began = time.perf_counter()
    await asyncio.gather(*(play(sandbox) for sandbox in live))
    spent = time.perf_counter() - began
    for sandbox in live:
        await sandbox.close()
    return boxes * turns / spent


async def _cold(times: int) -> float:
    """Spawn of a box without a pool; the end of the one before is outside the measured time."""
    jail = Jail()
    await jail.open()
    spent = []
    try:
        await jail.warm("python")
        for _ in range(times):
            began = time.perf_counter()
            box = await jail.spawn(BoxSpec(image="python"))
            spent.append(time.perf_counter() - began)
            await box.kill()
    finally:
        await jail.close()
    return statistics.median(spent) * 1000


async def _pool(factory: PythonSandbox, times: int) -> float:
    started: list[Sandbox] = []

    async def start() -> None:
        started.append(await factory.start(SandboxSpec()))

    for _ in range(2):
        await start()
    await asyncio.sleep(0.5)
    value = await _p50_ms(start, times, _REFILL_S)
    for sandbox in started:
        await sandbox.close()
    return value


async def _idle_mb(factory: PythonSandbox, episodes: int) -> float:
    """Proportional memory of the processes of one idle live episode, MiB."""
    call = Call(id="0.0", tool="python", arguments={"code": "x = 1"})
    before = _proportional_kb()
    live = await asyncio.gather(*(factory.start(SandboxSpec()) for _ in range(episodes)))
    for sandbox in live:
        await sandbox.call(call, timeout_s=30)
    after = _proportional_kb()
    for sandbox in live:
        await sandbox.close()
    return (after - before) / 1024 / episodes


def _proportional_kb() -> int:
    """Sum of the proportional set sizes of everything below this process, and of this process."""
    waiting, total = [os.getpid()], 0
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                waiting += map(int, file.read().split())
        except OSError:
            continue
    return total


async def _run(*, quick: bool) -> None:
    factory = PythonSandbox()
    await factory.open()
    try:
        turns = await _turn(factory, 500 if quick else 3000)
        _row("turn", "hub_p50_ms", turns, "ms", quick=quick)
        rate = await _turns_at_once(factory, 64, 20 if quick else 200)
        _row("turns_64", "turns_per_s", rate, "1/s", quick=quick)
        _row("start", "pool_p50_ms", await _pool(factory, 30 if quick else 200), "ms", quick=quick)
        memory = await _idle_mb(factory, 48 if quick else 400)
        _row("idle", "mb_per_episode", memory, "MiB", quick=quick)
    finally:
        await factory.close()
    _row("start", "cold_p50_ms", await _cold(50 if quick else 300), "ms", quick=quick)


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; ends within 50 s on 2 cores")
    asyncio.run(_run(quick=parser.parse_args().quick))


if __name__ == "__main__":
    main()
