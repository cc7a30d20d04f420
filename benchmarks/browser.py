"""MiniWoB++ in the browser sandbox, beside BrowserGym on the same pages, seeds and actions in the same run.

    python benchmarks/browser.py [--quick]

Prints one JSON object a line: {"bench", "case", "metric", "value", "unit"}, with "peer" and "ratio" (more is better)
where BrowserGym ran beside it. The actions are recorded first, as clicks at points and typed text, by looking at each
page once. Both sides have the same Chromium; BrowserGym's is not in a jail.

    miniwob_1             one episode after the other; steps show goal and accessibility tree
    miniwob_1_everything  the same, and each step shows document and screenshot as well, as BrowserGym's always do
    miniwob_16            sixteen episodes at once (BrowserGym: sixteen processes, as its API is one browser a process)
    ..._nosleep           against BrowserGym with its sleeps set to 0
    reset_*               the other rungs of the ladder
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agenthub.records import Call, frozen  # noqa: E402 - the folder must be on the path first
from agenthub.sandbox import SandboxSpec  # noqa: E402
from agenthub.sandboxes.browser.chromium import find  # noqa: E402
from agenthub.sandboxes.browser.sandbox import BrowserSandbox  # noqa: E402
from agenthub.sandboxes.browser.site import miniwob_folder  # noqa: E402

WINDOW = {"width": 332, "height": 214}
"""BrowserGym's."""
SHOWN = ("goal", "axtree", "error")
EVERYTHING = ("goal", "url", "axtree", "dom", "focused", "error", "screenshot")
PAGES = ("click-test", "click-button", "click-link", "click-dialog", "focus-text", "enter-text", "click-tab")
PEER = "BrowserGym 0.14"
PEER_S = 1500.0


@dataclass(frozen=True, slots=True)
class Episode:
    """What both sides play."""

    page: str
    seed: int
    actions: tuple[str, ...]


@dataclass(slots=True)
class Times:
    """What came of some episodes."""

    resets_s: list[float] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)
    solved: int = 0
    episodes: int = 0
    wall_s: float = 0.0
    at_once: int = 1

    @property
    def episodes_per_s(self) -> float:
        return self.episodes / self.wall_s

    @property
    def steps_per_s(self) -> float:
        """Of policies that take no time, without the resets."""
        return self.at_once * len(self.steps_s) / sum(self.steps_s)


def spec(page: str, seed: int, channels: Sequence[str], reset: str = "page") -> SandboxSpec:
    """The sandbox of one episode."""
    params = {"site": "miniwob", "page": page, "seed": seed, "channels": list(channels), "reset": reset, **WINDOW}
    return SandboxSpec(params=frozen(params))


async def recorded(factory: BrowserSandbox, page: str, seed: int) -> Episode:
    """The actions that solve a page, as points and keys."""
    session = await factory.start(spec(page, seed, ("goal", "dom")))
    goal, _, document = session.opening.partition("\ndom:")
    await session.close()
    said = re.findall(r'"([^"]*)"', goal)

    def at(pattern: str) -> str:
        line = next(line for line in document.splitlines() if re.search(pattern, line))
        x, y, width, height = (float(part) for part in re.search(r'box="([^"]*)"', line)[1].split(","))  # type: ignore[index]
        return f"mouse_click({x + width / 2:.0f}, {y + height / 2:.0f})"

    wanted = re.escape(said[0]) if said else ""
    if page == "click-tab":
        return Episode(page, seed, (at(rf"<a .*>{re.escape(goal.rpartition('on ')[2].rstrip('.'))}</a>"),))
    if page == "enter-text":
        return Episode(page, seed, (at("<input"), f"keyboard_type({said[0]!r})", at("<button.*Submit")))
    patterns = {
        "click-test": "<button",
        "click-button": rf"<button.*>{wanted}</button>",
        "click-link": rf"alink.*>{wanted}</span>",
        "click-dialog": "ui-dialog-titlebar-close",
        "focus-text": "<input",
    }
    return Episode(page, seed, (at(patterns[page]),))


async def played(factory: BrowserSandbox, episode: Episode, times: Times, channels: Sequence[str], reset: str) -> None:
    """One episode here."""
    started = time.perf_counter()
    session = await factory.start(spec(episode.page, episode.seed, channels, reset))
    times.resets_s.append(time.perf_counter() - started)
    for action in episode.actions:
        began = time.perf_counter()
        await session.call(Call(id="c", tool="act", arguments={"code": action}), timeout_s=60.0)
        times.steps_s.append(time.perf_counter() - began)
        if session.over:
            break
    times.solved += (await session.facts())["score"] == 1.0
    times.episodes += 1
    await session.close()


async def ours(
    factory: BrowserSandbox,
    episodes: Sequence[Episode],
    at_once: int,
    *,
    channels: Sequence[str] = SHOWN,
    reset: str = "page",
) -> Times:
    """All episodes, `at_once` at any moment."""
    times, waiting = Times(at_once=at_once), iter(episodes)

    async def worker() -> None:
        for episode in waiting:
            await played(factory, episode, times, channels, reset)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    times.wall_s = time.perf_counter() - started
    return times


def peers(episodes: Sequence[Episode], at_once: int, *, sleeps: bool) -> Times | None:
    """The same by BrowserGym, in `at_once` processes; None where it cannot be had."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "peer-environment"), "browsergym"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        print(made.stderr.strip(), file=sys.stderr)
        return None
    times = Times(at_once=at_once)
    pages = (miniwob_folder() / "miniwob").as_uri() + "/"
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for index in range(at_once):
            own = [{"page": it.page, "seed": it.seed, "actions": it.actions} for it in episodes[index::at_once]]
            job = Path(folder) / f"{index}.json"
            job.write_text(json.dumps({"episodes": own, "chromium": find(), "pages": pages, "sleeps": sleeps}))
            command = [made.stdout.strip(), str(ROOT / "benchmarks" / "gui_peers" / "browsergym_peer.py"), str(job)]
            running.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            )
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        started = time.perf_counter()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in running:
            said, _ = process.communicate(timeout=PEER_S)
            for row in map(json.loads, said.splitlines()):
                times.resets_s.append(row["reset_s"])
                times.steps_s += row["steps_s"]
                times.solved += row["solved"]
                times.episodes += 1
        times.wall_s = time.perf_counter() - started
    return times if times.episodes == len(episodes) else None


class Rows:
    """Prints measurements."""

    def __init__(self, quick: bool) -> None:
        self._quick = quick

    def add(self, case: str, metric: str, value: float, unit: str, peer: float | None = None) -> None:
        """One row; seconds and milliseconds are better where they are less."""
        row: dict[str, Any] = {"bench": "gui", "case": case, "metric": metric, "value": round(value, 4), "unit": unit}
        if peer is not None:
            ratio = peer / value if unit == "ms" else value / max(peer, 1e-9)
            row |= {"peer": PEER, "peer_value": round(peer, 4), "ratio": round(ratio, 3)}
        print(json.dumps(row | ({"quick": True} if self._quick else {})), flush=True)

    def all(self, case: str, own: Times, peer: Times | None) -> None:
        """Every metric of a case."""
        self.add(case, "episodes_per_s", own.episodes_per_s, "1/s", peer and peer.episodes_per_s)
        self.add(case, "steps_per_s", own.steps_per_s, "1/s", peer and peer.steps_per_s)
        for metric, values, others in (
            ("reset_p50_ms", own.resets_s, peer and peer.resets_s),
            ("step_p50_ms", own.steps_s, peer and peer.steps_s),
        ):
            other = statistics.median(others) * 1000 if others else None
            self.add(case, metric, statistics.median(values) * 1000, "ms", other)
        share = peer.solved / peer.episodes if peer else None
        self.add(case, "solved", own.solved / own.episodes, "share", share)


async def main(quick: bool) -> None:
    rows, count = Rows(quick), 21 if quick else 210
    factory = BrowserSandbox()
    await factory.open()
    try:
        names = list(itertools.islice(itertools.cycle(PAGES), count))
        episodes = [await recorded(factory, page, seed) for seed, page in enumerate(names)]
        await ours(factory, episodes[: len(PAGES)], 1)
        one = await ours(factory, episodes, 1)
        everything = await ours(factory, episodes, 1, channels=EVERYTHING)
        await ours(factory, episodes * (3 if quick else 1), 16)
        sixteen = await ours(factory, episodes * (3 if quick else 10), 16)
        rungs = {
            it: await ours(factory, episodes[: 4 if quick else 28], 1, reset=it)
            for it in ("reload", "context", "browser")
        }
    finally:
        await factory.close()
    few = episodes[: 5 if quick else 70]
    shipped = await asyncio.to_thread(peers, few, 1, sleeps=True)
    nosleep = await asyncio.to_thread(peers, few, 1, sleeps=False)
    at_16 = {} if quick else {it: await asyncio.to_thread(peers, episodes, 16, sleeps=it) for it in (True, False)}
    for case, own, pair in (
        ("miniwob_1", one, (shipped, nosleep)),
        ("miniwob_1_everything", everything, (shipped, nosleep)),
        ("miniwob_16", sixteen, (at_16.get(True), at_16.get(False))),
    ):
        rows.all(case, own, pair[0])
        rows.all(f"{case}_nosleep", own, pair[1])
    for rung, times in rungs.items():
        rows.add(f"reset_{rung}", "reset_p50_ms", statistics.median(times.resets_s) * 1000, "ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(parser.parse_args().quick))
