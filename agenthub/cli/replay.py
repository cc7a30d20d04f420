"""`agenthub replay`: show a recorded trajectory, or play its actions again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from agenthub.records import Trajectory

__all__ = ["command"]


def command(
    trajectory: Annotated[Path, typer.Argument(help="a JSON or JSONL file of trajectories")],
    line: Annotated[int, typer.Option(help="which trajectory of the file, from 1")] = 1,
    check: Annotated[bool, typer.Option(help="play the actions again and name the first turn that differs")] = False,
    tasks: Annotated[list[Path] | None, typer.Option(help="files or folders of suites")] = None,
    isolation: Annotated[str, typer.Option(help="how code is kept in: jail, docker, gvisor")] = "jail",
) -> None:
    """Show a trajectory turn by turn; with --check, play it again (exit status 1 where it differs)."""
    import asyncio

    from rich.console import Console

    from agenthub.replay import first_difference, read_trajectory

    console = Console(highlight=False, soft_wrap=True)
    recorded = read_trajectory(trajectory, line)
    _show(recorded, console)
    if not check:
        return
    difference = asyncio.run(first_difference(recorded, tasks or [], isolation=isolation))
    if difference is None:
        console.print("replayed: the same")
        return
    console.print(difference, style="red", markup=False)
    raise typer.Exit(1)


def _show(recorded: Trajectory, console: Console) -> None:
    from rich.markup import escape

    console.print(f"[bold]{escape(recorded.task)}[/bold] group {escape(recorded.group)} member {recorded.member}")
    for turn in recorded.turns:
        console.print(f"[dim]turn {turn.index}[/dim] [cyan]{escape(turn.text)}[/cyan]")
        for observation in turn.observations:
            console.print(f"[green]{escape(observation.text)}[/green]")
        if turn.rewards:
            console.print(f"[dim]rewards {dict(turn.rewards)}[/dim]")
    console.print(f"[bold]{recorded.stop}[/bold], {recorded.outcome}, reward {recorded.reward}")
