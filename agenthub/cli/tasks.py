"""`agenthub tasks`: list and show what can be played, play it with a script, and look for holes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from agenthub.suites.lint import Plan, Report
    from agenthub.suites.task import Suite, Task

__all__ = ["app"]

app = typer.Typer(help="What can be played: list, show, run, lint.", no_args_is_help=True)
Folders = Annotated[list[Path] | None, typer.Option("--tasks", help="files or folders of suites")]
SuiteArgument = Annotated[str, typer.Argument(help="name of a suite, or a YAML file")]
Limit = Annotated[int | None, typer.Option(help="at most so many tasks of a suite, spread evenly", min=1)]
Jobs = Annotated[int, typer.Option(help="episodes at once", min=1, max=256)]


@app.command("list")
def list_suites(tasks: Folders = None) -> None:
    """List the suites, and what keeps others from being played here."""
    from collections import Counter

    from rich.table import Table

    from agenthub.suites.equipment import lacking
    from agenthub.suites.load import load_suites

    suites = load_suites(tasks or [])
    unavailable = dict(suites.unavailable)
    table = Table("suite", "version", "tasks", "splits", "what it is", box=None, pad_edge=False)
    for name, suite in suites.items():
        missing = lacking(suite)
        if missing:
            unavailable[name] = missing
            continue
        counts = Counter(task.split for task in suite.tasks)
        splits = ", ".join(f"{split} {counts[split]}" for split in suite.splits)
        table.add_row(name, suite.version, str(len(suite.tasks)), splits, suite.description)
    console = _console()
    console.print(table)
    for name, reason in unavailable.items():
        console.print(f"{name}: not available here: {reason}", style="yellow", markup=False)


@app.command("show")
def show(
    suite: SuiteArgument,
    task: Annotated[str, typer.Argument(help="id of a task")],
    reveal: Annotated[bool, typer.Option(help="show the target, the checks and the solution too")] = False,
    tasks: Folders = None,
) -> None:
    """Show a task as JSON; what is hidden from policies stays hidden without --reveal."""
    from agenthub.suites.load import find_task

    found = find_task(_suite(suite, tasks), task)
    facts = found.public()
    if reveal:
        facts |= _hidden(found)
    _console().print_json(data=facts, default=str)


@app.command("run")
def run(
    suite: SuiteArgument,
    task: Annotated[str | None, typer.Argument(help="id of a task; every task where left out")] = None,
    policy: Annotated[str, typer.Option(help="oracle or noop")] = "oracle",
    limit: Limit = None,
    jobs: Jobs = 8,
    tasks: Folders = None,
) -> None:
    """Play tasks with a script and say what each was worth. Exit status 1 where the oracle does not win them all."""
    import asyncio

    from agenthub.errors import UnknownName
    from agenthub.suites.load import find_task

    if policy not in ("oracle", "noop"):
        raise UnknownName("policy to run", policy, ("noop", "oracle"))
    found = _suite(suite, tasks)
    chosen = [find_task(found, task)] if task is not None else _spread(found.tasks, limit)
    wins = asyncio.run(_run(chosen, policy, jobs, _console()))
    if policy == "oracle" and wins < len(chosen):
        raise typer.Exit(1)


@app.command("lint")
def lint(
    suites: Annotated[
        list[str] | None, typer.Argument(help="names of suites or YAML files; all where left out")
    ] = None,
    limit: Limit = None,
    jobs: Jobs = 8,
    episodes: Annotated[int, typer.Option(help="tasks of a suite that cheats play, and random episodes", min=1)] = 24,
    seed: Annotated[int, typer.Option(help="of the policy that acts at random")] = 0,
    quick: Annotated[bool, typer.Option(help="at most 12 tasks of a suite, and 6 of them with cheats")] = False,
    isolation: Annotated[str, typer.Option(help="how code is kept in: jail, docker, gvisor")] = "jail",
    tasks: Folders = None,
) -> None:
    """Play every task with an oracle that must win, and with idle, random and cheating policies that must not.

    Exit status 1 on a hole; each is named with its task and the technique that found it.
    """
    import asyncio

    from agenthub.suites.lint import Plan
    from agenthub.suites.load import load_suites

    console = _console()
    if suites:
        chosen = [_suite(name, tasks, isolation) for name in suites]
    else:
        found = load_suites(tasks or [], isolation=isolation)
        chosen = list(found.values())
        for name, reason in found.unavailable.items():
            console.print(f"{name}: skipped: {reason}", style="yellow", markup=False)
    if quick:
        limit, episodes = min(limit or 12, 12), min(episodes, 6)
    plan = Plan(episodes=episodes, seed=seed, jobs=jobs)
    if not asyncio.run(_lint(chosen, limit, plan, isolation, console)):
        raise typer.Exit(1)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _suite(name: str, folders: Sequence[Path] | None, isolation: str = "jail") -> Suite:
    from agenthub.suites.load import load_suite, load_suites

    if name.endswith((".yaml", ".yml")):
        return load_suite(name, isolation=isolation)
    return load_suites(list(folders or []), isolation=isolation)[name]


def _hidden(task: Task) -> dict[str, Any]:
    from agenthub.codec import encode

    return {
        "target": encode(task.target),
        "verifier": encode(task.verifier),
        "turn_checks": encode(task.turn_checks),
        "solution": list(task.solution),
        "x": encode(task.x),
        "origin": encode(task.origin),
        "place": task.place,
    }


def _spread(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    if limit is None or limit >= len(tasks):
        return list(tasks)
    return [tasks[index * len(tasks) // limit] for index in range(limit)]


async def _run(tasks: Sequence[Task], policy: str, jobs: int, console: Console) -> int:
    import asyncio

    from agenthub.episodes import Workbench
    from agenthub.policies.scripted import ScriptedPolicy
    from agenthub.suites.lint import play, won
    from agenthub.wire import Action

    bench, slots, wins = Workbench(), asyncio.Semaphore(jobs), 0

    async def one(task: Task) -> None:
        nonlocal wins
        script = ScriptedPolicy.noop() if policy == "noop" else ScriptedPolicy.oracle(task.solution, task.key)
        async with slots:
            end = await play(task, bench, lambda turn: Action(text=script.act(turn, "")))
        wins += won(end, task)
        worth = "none" if end.reward is None else f"{end.reward:g}"
        line = f"{task.key}  reward {worth}  {len(end.turns)} turns  {end.stop}  {end.outcome}  {end.reason}"
        console.print(line.rstrip(), markup=False)

    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(one(task))
    finally:
        await bench.close()
    console.print(f"{policy}: {wins} of {len(tasks)} won")
    return wins


async def _lint(suites: Sequence[Suite], limit: int | None, plan: Plan, isolation: str, console: Console) -> bool:
    from rich.progress import Progress

    from agenthub.episodes import Workbench
    from agenthub.suites.lint import examine

    bench, sound = Workbench(isolation), True
    try:
        for suite in suites:
            chosen = _spread(suite.tasks, limit)
            with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
                bar = progress.add_task(suite.name, total=len(chosen))
                report = await examine(chosen, bench, plan, done=_advance(progress, bar))
            _tell(suite.name, len(chosen), report, console)
            sound = sound and not report.holes
    finally:
        await bench.close()
    return sound


def _tell(suite: str, tasks: int, report: Report, console: Console) -> None:
    """What was tried, then the holes."""
    from rich.table import Table

    table = Table("technique", "tasks", "episodes", "won", "what it tries", box=None, pad_edge=False)
    for tally in report.tallies:
        row = (tally.technique, str(tally.tasks), str(tally.episodes), str(tally.wins), tally.does)
        table.add_row(*row, style="red" if any(hole.technique == tally.technique for hole in report.holes) else "")
    console.print(table)
    for hole in report.holes:
        line = f"{hole.task.place}: {hole.task.key}: {hole.what} [{hole.technique}]"
        console.print(line, style="red", markup=False)
    broken = len({hole.task.id for hole in report.holes})
    console.print(f"{suite}: {tasks} tasks, {broken} with a hole")


def _advance(progress: Any, bar: Any) -> Callable[[Task], None]:
    return lambda task: progress.advance(bar)
