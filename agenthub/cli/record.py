"""`agenthub record`: a file of expert trajectories with their tokens, from a suite's oracles or from recorded texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agenthub.client import Hub
    from agenthub.trainers.experts.record import Recorded

__all__ = ["command"]


def command(
    suite: Annotated[str, typer.Argument(help="name of a suite that the hub has")],
    out: Annotated[Path, typer.Option(help="JSONL file to write")],
    source: Annotated[
        Path | None,
        typer.Option(help="JSONL of trajectories whose texts are played; left out: the oracles"),
    ] = None,
    split: Annotated[str, typer.Option(help="split whose tasks are played")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many scripts, the first ones")] = None,
    model: Annotated[str, typer.Option(help="whose tokens: tiny, or a Hugging Face folder")] = "tiny",
    renderer: Annotated[str, typer.Option(help="plain or chat")] = "plain",
    hub: Annotated[str | None, typer.Option(help="URL of a hub that serves already")] = None,
    tasks: Annotated[list[Path] | None, typer.Option(help="suites for the hub that is started")] = None,
) -> None:
    """Play scripts on the hub with the tokens of a model's vocabulary, and keep what wins.

    The file is what a recipe's `experts: {source: FILE}` learns from.
    """
    import tempfile

    from agenthub.cli.signals import run_until_signal
    from agenthub.trainers.hub import hub_of

    found: list[Recorded] = []

    async def play() -> None:
        with tempfile.TemporaryDirectory(prefix="agenthub-record-") as folder:
            async with hub_of(hub, Path(folder), tasks or []) as client:
                found.append(await _record(client, suite, out, source, split, limit, model, renderer, tasks or []))

    caught = run_until_signal(play())
    if caught:
        raise typer.Exit(128 + caught)
    done = found[0]
    lost = f", {done.lost} did not win (the first: {done.reason})" if done.lost else ""
    print(f"{out}: {done.kept} experts, {done.tokens} tokens{lost}")


async def _record(
    hub: Hub,
    suite: str,
    out: Path,
    source: Path | None,
    split: str,
    limit: int | None,
    model: str,
    renderer: str,
    tasks: list[Path],
) -> Recorded:
    from agenthub.policies.embedded import TINY, load_model
    from agenthub.trainers.experts.beside import solutions
    from agenthub.trainers.experts.record import record, scripts_for
    from agenthub.trainers.experts.scripted import ScriptPlayer
    from agenthub.trainers.hub import protocol_of, task_ids
    from agenthub.trainers.run import renderer_for

    keys = [f"{suite}/{task}" for task in await task_ids(hub, suite, split)]
    scripts = scripts_for(suite, keys, solutions(suite, tasks) if source is None else {}, source)
    _, tokenizer = load_model(TINY if model == "tiny" else Path(model))
    protocol = await protocol_of(hub, suite)
    made = renderer_for(renderer, tokenizer, protocol)
    player = ScriptPlayer(hub, tokenizer, made, native=protocol == "native")
    return await record(player, scripts[:limit], out)
