"""`agenthub play`: step one episode by hand, or watch the oracle do it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agenthub.blobs import Blobs
    from agenthub.policies.scripted import ScriptedPolicy
    from agenthub.records import Trajectory
    from agenthub.suites.task import Task

__all__ = ["command"]


def command(
    suite: Annotated[str, typer.Argument(help="name of a suite, or a YAML file")],
    task: Annotated[str | None, typer.Argument(help="id of a task; the first one where left out")] = None,
    policy: Annotated[str, typer.Option(help="human, oracle or noop")] = "human",
    save: Annotated[Path | None, typer.Option(help="append the trajectory to this JSONL file")] = None,
    tasks: Annotated[list[Path] | None, typer.Option(help="files or folders of suites")] = None,
    images: Annotated[Path | None, typer.Option(help="folder for images; a temporary one where left out")] = None,
) -> None:
    """Play one episode in this terminal; a human's turn ends with an empty line after the action.

    Images are written to a folder as they are shown. With --save they also go beside the trajectory, where
    `agenthub report FILE` finds them.
    """
    import asyncio

    from agenthub.errors import UserError
    from agenthub.suites.load import find_task, load_suite, load_suites

    found = load_suite(suite) if suite.endswith((".yaml", ".yml")) else load_suites(tasks or [])[suite]
    chosen = find_task(found, task) if task is not None else found.tasks[0]
    try:
        if save is not None:
            # An episode that cannot be kept is not played at all.
            save.open("a", encoding="utf-8").close()
        if images is not None:
            images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from error
    asyncio.run(_play(chosen, policy, save, images))


async def _play(task: Task, policy: str, save: Path | None, images: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    from agenthub.blobs import BlobStore
    from agenthub.episodes import Episode, Workbench
    from agenthub.wire import Action

    console = Console(highlight=False)
    player = _player(policy, task)
    bench = Workbench()
    if save is not None:
        bench.blobs = BlobStore(save.with_name(f"{save.name}.blobs"))
    screens = _Screens(bench.blobs, images)
    episode = Episode(task, bench, id="play", group="play", member=0)
    try:
        opened = await episode.open()
        console.print(f"[bold]{escape(task.key)}[/bold]  tools: {', '.join(tool['name'] for tool in opened['tools'])}")
        for message in opened["messages"]:
            console.print(f"[dim]{message['role']}[/dim] {escape(message['content'])}")
        shown = opened["messages"][-1]["content"]
        for path in screens.write(opened.get("images", ()), 0):
            console.print(f"[blue]{escape(str(path))}[/blue]")
        while not episode.done:
            text = _human(episode.next_turn) if player is None else player.act(episode.next_turn, shown)
            if text is None:
                break
            if player is not None:
                console.print(f"[cyan]{escape(text)}[/cyan]")
            done = await episode.step(Action(text=text), timeout_s=None, generation=None)
            shown = done.observation["text"]
            console.print(f"[green]{escape(shown)}[/green]")
            parts = [part for row in done.observation["observations"] for part in row["parts"]]
            for path in screens.write(parts, done.turn + 1):
                console.print(f"[blue]{escape(str(path))}[/blue]")
            if done.info["parse_error"]:
                console.print(f"[yellow]{escape(done.info['parse_error'])}[/yellow]")
        end = await episode.cancel()
        console.print(f"[bold]{end.stop}[/bold], outcome {end.outcome}, reward {end.reward} {escape(end.reason)}")
        if save is not None:
            _append(save, end)
    finally:
        await episode.cancel()
        await bench.close()


class _Screens:
    """The images of an episode as files in a folder."""

    def __init__(self, blobs: Blobs, folder: Path | None) -> None:
        self._blobs, self._folder = blobs, folder

    def write(self, parts: Iterable[Mapping[str, Any]], turn: int) -> list[Path]:
        """Write what of the parts is an image, named by the turn before which it is shown."""
        made: list[Path] = []
        for part in parts:
            if part["type"] == "image":
                self._folder = self._folder or Path(tempfile.mkdtemp(prefix="agenthub-play-"))
                self._folder.mkdir(parents=True, exist_ok=True)
                suffix = part["media_type"].rpartition("/")[2]
                made.append(self._folder / f"turn-{turn:03}-{len(made)}.{suffix}")
                made[-1].write_bytes(self._blobs.get(part["sha256"]))
        return made


def _player(policy: str, task: Task) -> ScriptedPolicy | None:
    """None for a human.

    Raises:
        UnknownName: there is no such policy. UserError: the task has no oracle.
    """
    from agenthub.errors import UnknownName
    from agenthub.policies.scripted import ScriptedPolicy

    if policy == "human":
        return None
    if policy == "oracle":
        return ScriptedPolicy.oracle(task.solution, task.key)
    if policy == "noop":
        return ScriptedPolicy.noop()
    raise UnknownName("policy to play with", policy, ("human", "noop", "oracle"))


def _append(path: Path, trajectory: Trajectory) -> None:
    import json

    from agenthub.codec import encode

    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(encode(trajectory)) + "\n")


def _human(turn: int) -> str | None:
    """Lines up to an empty one; None at the end of input."""
    print(f"[turn {turn}] your action, then an empty line:", flush=True)
    lines: list[str] = []
    for line in sys.stdin:
        if line.strip() == "" and lines:
            return "\n".join(lines)
        lines.append(line.rstrip("\n"))
    return "\n".join(lines) if lines else None
