"""`agenthub play`: step one episode by hand, or watch the oracle do it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    suite: Annotated[str, typer.Argument(help="name of a suite, or a YAML file")],
    task: Annotated[str | None, typer.Argument(help="id of a task; the first one where left out")] = None,
    policy: Annotated[str, typer.Option(help="human, oracle or noop")] = "human",
    save: Annotated[Path | None, typer.Option(help="append the trajectory to this JSONL file")] = None,
    tasks: Annotated[list[Path] | None, typer.Option(help="files or folders of suites")] = None,
) -> None:
    """Play one episode in this terminal; a human's turn ends with an empty line after the action."""
    import asyncio

    from rich.console import Console

    console = Console(highlight=False)
    asyncio.run(_play(console, suite, task, policy, save, tasks or []))


async def _play(
    console: object, suite: str, task_id: str | None, policy: str, save: Path | None, paths: list[Path]
) -> None:
    import json

    from rich.console import Console
    from rich.markup import escape

    from agenthub.codec import encode
    from agenthub.episodes import Episode, Workbench
    from agenthub.policies.scripted import scripted
    from agenthub.suites.load import open_task
    from agenthub.wire import Action

    assert isinstance(console, Console)
    task = open_task(suite, task_id, paths)
    player = None if policy == "human" else scripted(policy, task)
    bench = Workbench()
    episode = Episode(task, bench, id="play", group="play", member=0)
    try:
        opened = await episode.open()
        console.print(f"[bold]{escape(task.key)}[/bold]  {', '.join(tool['name'] for tool in opened['tools'])}")
        for message in opened["messages"]:
            console.print(f"[dim]{message['role']}[/dim] {escape(message['content'])}")
        shown = opened["messages"][-1]["content"]
        while not episode.done:
            text = _human(episode.next_turn) if player is None else player.act(episode.next_turn, shown)
            if text is None:
                break
            if player is not None:
                console.print(f"[cyan]{escape(text)}[/cyan]")
            done = await episode.step(Action(text=text), timeout_s=None, generation=None)
            shown = done.observation["text"]
            console.print(f"[green]{escape(shown)}[/green]")
            if done.info.get("parse_error"):
                console.print(f"[yellow]{escape(str(done.info['parse_error']))}[/yellow]")
        end = await episode.cancel()
        console.print(f"[bold]{end.stop}[/bold], {end.outcome}, reward {end.reward} {escape(end.reason)}")
        if save is not None:
            with save.open("a", encoding="utf-8") as file:
                file.write(json.dumps(encode(end)) + "\n")
    finally:
        await episode.cancel()
        await bench.close()


def _human(turn: int) -> str | None:
    """Lines up to an empty one; None at the end of input."""
    print(f"[turn {turn}] your action, then an empty line:", flush=True)
    lines: list[str] = []
    for line in sys.stdin:
        if line.strip() == "" and lines:
            return "\n".join(lines)
        lines.append(line.rstrip("\n"))
    return "\n".join(lines) if lines else None
