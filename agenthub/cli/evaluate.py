"""`agenthub eval`: avg@k and pass@k of a policy on a suite, with confidence intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    suite: Annotated[str, typer.Argument(help="name of a suite that the hub has")],
    policy: Annotated[str, typer.Option(help="tiny, a Hugging Face folder, a run's folder, or URL#MODEL")] = "tiny",
    split: Annotated[str, typer.Option(help="split to play")] = "eval",
    count: Annotated[int, typer.Option("--count", min=1, help="tasks, the first ones of the split")] = 200,
    k: Annotated[int, typer.Option(min=1, max=1024, help="episodes on each task")] = 8,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="0 is greedy")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="tokens of one turn")] = 40,
    renderer: Annotated[str, typer.Option(help="plain or chat")] = "plain",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    hub: Annotated[str | None, typer.Option(help="URL of a hub that serves already")] = None,
    tasks: Annotated[list[Path] | None, typer.Option(help="suites for the hub that is started")] = None,
    json_: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Play k episodes on each task; intervals are over tasks, 95%."""
    import json
    import tempfile

    from agenthub.cli.signals import run_until_signal
    from agenthub.policy import Sampling
    from agenthub.trainers.evaluate import Evaluation
    from agenthub.trainers.hub import hub_of
    from agenthub.trainers.progress import evaluation_text
    from agenthub.trainers.run import Held, evaluate_policy, load_policy

    served, update = load_policy(policy)
    found: list[Evaluation] = []

    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)

    async def play() -> None:
        with tempfile.TemporaryDirectory(prefix="agenthub-eval-") as folder:
            async with hub_of(hub, Path(folder), tasks or []) as client:
                wanted = Held(suite=suite, split=split, tasks=count, k=k, seed=seed)
                try:
                    found.append(await evaluate_policy(client, served, renderer, wanted, sampling))
                finally:
                    await served.close()

    caught = run_until_signal(play())
    if caught:
        raise typer.Exit(128 + caught)
    row = {"suite": suite, "split": split, "policy": policy, "update": update, **found[0].row()}
    print(json.dumps(row) if json_ else f"{suite}/{split}: {evaluation_text(found[0])}")
