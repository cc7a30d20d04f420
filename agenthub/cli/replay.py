"""`agenthub replay`: show a recorded trajectory, or play its actions again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    trajectory: Annotated[Path, typer.Argument(help="a JSON or JSONL file of trajectories")],
    line: Annotated[int, typer.Option(help="which trajectory of the file, from 1")] = 1,
    check: Annotated[bool, typer.Option(help="play the actions again and name the first turn that differs")] = False,
    tasks: Annotated[list[Path] | None, typer.Option(help="files or folders of suites")] = None,
) -> None:
    """Show a trajectory turn by turn; with --check, play it again (exit status 1 where it differs)."""
    import asyncio

    from rich.console import Console
    from rich.markup import escape

    from agenthub.errors import UserError
    from agenthub.replay import first_difference, read_trajectory

    console = Console(highlight=False)
    recorded = read_trajectory(trajectory, line)
    console.print(f"[bold]{escape(recorded.task)}[/bold] group {escape(recorded.group)} member {recorded.member}")
    for turn in recorded.turns:
        console.print(f"[dim]turn {turn.index}[/dim] [cyan]{escape(turn.text)}[/cyan]")
        for observation in turn.observations:
            console.print(f"[green]{escape(observation.text)}[/green]")
        if turn.rewards:
            console.print(f"[dim]rewards {dict(turn.rewards)}[/dim]")
    console.print(f"[bold]{recorded.stop}[/bold], {recorded.outcome}, reward {recorded.reward}")
    if not check:
        return
    if "/" not in recorded.task:
        raise UserError(f"{trajectory}:{line}: task is {recorded.task!r}; expected suite/id")
    difference = asyncio.run(first_difference(recorded, tasks or []))
    console.print("replayed: the same" if difference is None else f"[red]{escape(difference)}[/red]")
    if difference is not None:
        raise typer.Exit(1)
