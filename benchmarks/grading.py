"""Grading on real inputs: HumanEval's unit tests, and GSM8K played over HTTP by a scripted oracle.

    AGENTHUB_DATA=folder python benchmarks/grading.py [--quick]

One JSON object a line. HumanEval: every canonical solution as an episode, and every stub (`return None`). GSM8K: each
annotation `<<48/2=24>>` is a tool turn and the last line is the answer, in episodes of a real `agenthub serve`; then
the same episodes with the answer off by one, and with the right number in prose alone. Questions without annotations,
and those with one that does not evaluate, are listed on standard error.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("AGENTHUB_DATA", str(ROOT.parent / "shared" / "data"))

from agenthub.client import Hub  # noqa: E402 - the folder must be on the path first
from agenthub.episodes import Workbench  # noqa: E402
from agenthub.rewards.answers import number  # noqa: E402
from agenthub.suites.lint import play, won  # noqa: E402
from agenthub.suites.load import Suites, load_suites  # noqa: E402
from agenthub.suites.task import Task  # noqa: E402
from agenthub.wire import Action, LimitsIn  # noqa: E402

AT_ONCE = 32
START_S = 60.0
QUICK_QUESTIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One episode over HTTP."""

    task: str
    reward: float | None
    turns: int
    failed_calls: int


def main() -> int:
    """Run both cases; 1 where something was graded wrongly, 2 where data is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK_QUESTIONS} questions of GSM8K")
    quick = parser.parse_args().quick
    suites = load_suites([ROOT / "tasks"])
    sound = [_case(suites, name, run, quick) for name, run in (("humaneval", humaneval), ("gsm8k", gsm8k))]
    return 2 if None in sound else int(not all(sound))


def _case(suites: Suites, name: str, run: object, quick: bool) -> bool | None:
    if name in suites.unavailable:
        print(f"{name}: {suites.unavailable[name]}", file=sys.stderr)
        return None
    assert callable(run)
    return bool(asyncio.run(run(suites[name].tasks, quick)))


def row(case: str, metric: str, value: float, unit: str, quick: bool) -> None:
    """Print one measurement."""
    fields = {"bench": "grading", "case": case, "metric": metric, "value": round(value, 3), "unit": unit}
    print(json.dumps(fields | ({"quick": True} if quick else {})), flush=True)


async def humaneval(tasks: Sequence[Task], quick: bool) -> bool:
    """Grade every canonical solution and every stub; True where all of the former and none of the latter pass."""
    bench, slots = Workbench(), asyncio.Semaphore(AT_ONCE)

    async def passes(task: Task, texts: Sequence[str]) -> bool:
        async with slots:
            end = await play(task, bench, lambda turn: Action(text=texts[turn] if turn < len(texts) else ""))
        return won(end, task)

    try:
        await bench.factory("python")
        started = time.perf_counter()
        solved = await asyncio.gather(*(passes(task, task.solution) for task in tasks))
        seconds = time.perf_counter() - started
        stubs = await asyncio.gather(*(passes(task, _stub(task)) for task in tasks))
    finally:
        await bench.close()
    row("humaneval", "solved", sum(solved), "solutions", quick)
    row("humaneval", "stubs_passed", sum(stubs), "stubs", quick)
    row("humaneval", "seconds", seconds, "s", quick)
    print(f"humaneval: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)
    return all(solved) and not any(stubs)


def _stub(task: Task) -> tuple[str, str]:
    prompt = str(task.verifier.checks[0].args["header"])
    return f"```python\n{prompt}    return None\n```", r"\boxed{done}"


async def gsm8k(tasks: Sequence[Task], quick: bool) -> bool:
    """Play the oracle and two that must fail; True where every annotated question was rewarded and no other play."""
    chosen = tasks[:: len(tasks) // QUICK_QUESTIONS][:QUICK_QUESTIONS] if quick else tasks
    with serving("gsm8k.yaml") as url:
        async with Hub(url) as hub:
            started = time.perf_counter()
            oracle = await play_all(hub, [(task, task.solution) for task in chosen])
            seconds = time.perf_counter() - started
            wrong = await play_all(hub, [(task, (*task.solution[:-1], _off_by_one(task))) for task in chosen])
            prose = await play_all(hub, [(task, (*task.solution[:-1], _in_prose(task))) for task in chosen])
    annotated = [len(task.solution) > 1 for task in chosen]
    playable = [one for one, has in zip(oracle, annotated, strict=True) if has and not one.failed_calls]
    _list("no annotations", [one for one, has in zip(oracle, annotated, strict=True) if not has])
    _list("an annotation does not evaluate", [one for one in oracle if one.failed_calls])
    _list("not rewarded", [one for one in playable if one.reward != 1.0])
    false_rewards = sum(one.reward != 0.0 for one in (*wrong, *prose))
    row("gsm8k", "episodes", len(oracle), "episodes", quick)
    row("gsm8k", "rewarded", sum(one.reward == 1.0 for one in playable), "episodes", quick)
    row("gsm8k", "unplayable", len(oracle) - len(playable), "episodes", quick)
    row("gsm8k", "false_rewards", false_rewards, "episodes", quick)
    row("gsm8k", "episodes_per_s", len(oracle) / seconds, "1/s", quick)
    row("gsm8k", "turns_per_s", sum(one.turns for one in oracle) / seconds, "1/s", quick)
    return false_rewards == 0 and all(one.reward == 1.0 for one in playable)


def _off_by_one(task: Task) -> str:
    value = number(task.target)
    assert value is not None
    return f"\\boxed{{{value + 1}}}"


def _in_prose(task: Task) -> str:
    return f"The answer is {task.target}. So it is {task.target}:\n#### {task.target}"


def _list(what: str, episodes: Sequence[Played]) -> None:
    if episodes:
        print(f"gsm8k: {what} ({len(episodes)}): {', '.join(one.task for one in episodes)}", file=sys.stderr)


async def play_all(hub: Hub, scripts: Sequence[tuple[Task, Sequence[str]]]) -> list[Played]:
    """One episode for each script, AT_ONCE at a time; a script that gives no answer ends with its last turn."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(task: Task, texts: Sequence[str]) -> Played:
        async with slots:
            (episode,) = await hub.create(task.suite, task.id, limits=LimitsIn(max_turns=len(texts)))
            reward, failed = 0.0, 0
            for text in texts:
                done = await episode.step(text)
                failed += sum(bool(shown["failed"]) for shown in done.observation["observations"])
                reward += done.reward or 0.0
                if done.terminated or done.truncated:
                    return Played(
                        task=task.id,
                        reward=None if done.reward is None else reward,
                        turns=done.turn + 1,
                        failed_calls=failed,
                    )
        raise RuntimeError(f"{task.key} did not end after {len(texts)} turns")

    return list(await asyncio.gather(*(one(task, texts) for task, texts in scripts)))


@contextmanager
def serving(suite: str) -> Iterator[str]:
    """The URL of an `agenthub serve` process that ends with the context."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "agenthub", "serve", "--port", "0", "--exit-with-parent"]
        command += ["--tasks", str(ROOT / "tasks" / suite), "--log", f"{folder}/log.sqlite", "--ready-file", str(ready)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists() or not ready.read_text().strip():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"agenthub serve did not start (exit status {process.poll()})")
                time.sleep(0.05)
            yield json.loads(ready.read_text())["url"]
        finally:
            process.terminate()
            process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
