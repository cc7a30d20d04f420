"""`agenthub compare`: recipes on one suite with the same budget and seeds, and one report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agenthub.trainers.compare.plan import Plan

__all__ = ["command"]


def command(
    recipes: Annotated[list[str], typer.Argument(help="names of recipes (see `agenthub recipes`), or files")],
    seeds: Annotated[int, typer.Option(help="runs of each recipe, with the seeds 0, 1, ...")] = 3,
    suite: Annotated[str | None, typer.Option(help="suite of all of them; the first recipe's where left out")] = None,
    updates: Annotated[int | None, typer.Option(help="updates of each run; the first recipe's where left out")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value put over every recipe")] = None,
    out: Annotated[Path, typer.Option(help="folder of the runs, and of the report unless --report is given")] = Path(
        "runs/compare"
    ),
    report: Annotated[Path | None, typer.Option(help="folder of the report")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="drop runs of another comparison that are in --out")
    ] = False,
    hub: Annotated[str | None, typer.Option(help="URL of a hub that serves already")] = None,
    tasks: Annotated[list[Path] | None, typer.Option(help="suites for the hubs that are started")] = None,
) -> None:
    """Train each recipe with each seed and write report.html, README.md and compare.json.

    All have the suite, the rollouts' sizes, the evaluations and the number of updates of the first. Given again, it
    goes on: runs that are done stay, failed ones are tried again. Exit status 1 where a run failed.
    """
    from agenthub.trainers.compare.plan import make_plan

    plan = make_plan(recipes, seeds=seeds, suite=suite, updates=updates, overrides=set_ or [])
    status = _run(plan, out, report or out, replace, hub, tasks or [])
    if status:
        raise typer.Exit(status)


def _run(plan: Plan, out: Path, report: Path, replace: bool, hub: str | None, tasks: list[Path]) -> int:
    """The exit status."""
    from datetime import UTC, datetime

    from agenthub.cli.signals import run_until_signal
    from agenthub.trainers.compare.numbers import compared
    from agenthub.trainers.compare.page import write_comparison
    from agenthub.trainers.compare.runs import run_all

    said = shlex.join(["agenthub", *sys.argv[1:]])

    def write() -> None:
        write_comparison(compared(plan, out), report, command=said, date=datetime.now(UTC).date().isoformat())

    async def work() -> None:
        await run_all(plan, out, hub=hub, tasks=tasks, replace=replace, note=_say, after=write)

    caught = run_until_signal(work(), lambda: _say("interrupted; the same command goes on"))
    if caught:
        return 128 + caught
    write()
    _say(f"report: {report / 'report.html'}")
    failed = compared(plan, out).failed()
    for one in failed:
        _say(f"{one.run.arm}, seed {one.run.seed}, failed: {one.error.splitlines()[-1]}")
    return 1 if failed else 0


def _say(text: str) -> None:
    print(text, flush=True)
