"""Steps a second through `agenthub serve`, on a task that costs nothing: a turn without a call, answered by a reminder.

    python benchmarks/hub.py [--quick]

Everything of a real step is in it (wire, protocol, limits, log, reward) but the sandbox. The hub is a process of its
own; `cheap_N` is N sessions on one WebSocket, each waiting for its answer before its next step; `batch_N` posts the
steps of N sessions at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agenthub.client import BatchStep, EpisodeHandle, Hub
from agenthub.wire import Action

SUITE = """
schema: agenthub.suite/1
suite: {name: cheap, version: "1", description: Reminds., license: CC0-1.0}
defaults:
  protocol: fence_strict
  on_no_call: remind
  limits: {max_turns: 1000000, episode_seconds: 3600}
  verifier: {checks: [{uses: exact}]}
tasks:
  - {id: t, prompt: {user: "?"}, target: {answer: "1"}}
"""
TEXT = "nothing that any protocol reads as a call"


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """A hub process on the cheap suite: its URL and process id."""
    suite = folder / "cheap.yaml"
    suite.write_text(SUITE)
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "agenthub", "serve", "--tasks", str(suite), "--port", "0"]
    command += ["--log", str(folder / "log.sqlite"), "--ready-fd", str(writer)]
    process = subprocess.Popen(command, pass_fds=(writer,), stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            row = json.loads(ready.readline())
        yield row["url"], row["pid"]
    finally:
        process.terminate()
        process.wait(10)


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def single(episodes: list[EpisodeHandle], seconds: float) -> list[float]:
    """Step every episode for some seconds; seconds of each step."""
    ends = time.perf_counter() + seconds
    took: list[float] = []

    async def play(episode: EpisodeHandle) -> None:
        while (began := time.perf_counter()) < ends:
            await episode.step(TEXT)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(play(episode) for episode in episodes))
    return took


async def batched(hub: Hub, episodes: list[EpisodeHandle], seconds: float) -> list[float]:
    """The same, all episodes in one request at a time."""
    ends = time.perf_counter() + seconds
    took: list[float] = []
    action = Action(text=TEXT, calls=None)
    while (began := time.perf_counter()) < ends:
        await hub.steps([BatchStep(episode=episode, action=action) for episode in episodes])
        took += [time.perf_counter() - began] * len(episodes)
    return took


async def measure(case: str, sessions: int, seconds: float, url: str, pid: int, quick: bool) -> None:
    """Run one case and print its rows."""
    async with Hub(url) as hub:
        episodes = await hub.create("cheap", "t", count=sessions, lease_s=600)
        cpu, began = cpu_seconds(pid), time.perf_counter()
        took = sorted(
            await (batched(hub, episodes, seconds) if case.startswith("batch") else single(episodes, seconds))
        )
        wall, cpu = time.perf_counter() - began, cpu_seconds(pid) - cpu
        await asyncio.gather(*(episode.close() for episode in episodes))
    for metric, value, unit in (
        ("steps_per_s", len(took) / wall, "1/s"),
        ("p50_ms", 1e3 * took[len(took) // 2], "ms"),
        ("p99_ms", 1e3 * took[len(took) * 99 // 100], "ms"),
        ("server_cpu_us", 1e6 * cpu / len(took), "us"),
    ):
        row = {"bench": "hub", "case": case, "metric": metric, "value": round(value, 3), "unit": unit}
        print(json.dumps(row | ({"quick": True} if quick else {})), flush=True)


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds for each case")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (url, pid):
        for case, sessions in (("cheap_1", 1), ("cheap_64", 64), ("cheap_256", 256), ("batch_256", 256)):
            asyncio.run(measure(case, sessions, 2.0 if quick else 10.0, url, pid, quick))


if __name__ == "__main__":
    main()
