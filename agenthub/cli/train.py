"""`agenthub train`: train a policy by a recipe, on a hub that is started for the run or serves already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agenthub.trainers.folder import RunFolder

__all__ = ["command"]


def command(
    recipe: Annotated[str | None, typer.Argument(help="name of a recipe (see `agenthub recipes`), or a file")] = None,
    suite: Annotated[str | None, typer.Option(help="suite to train on, in place of the recipe's")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value put over the recipe")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run; runs/RECIPE-DATE where left out")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in --out")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="drop the run that is in --out")] = False,
    hub: Annotated[str | None, typer.Option(help="URL of a hub that serves already")] = None,
    tasks: Annotated[list[Path] | None, typer.Option(help="suites for the hub that is started")] = None,
) -> None:
    """Train, and write config, trajectories, metrics, checkpoints and report.html under --out."""
    from agenthub.errors import UserError
    from agenthub.trainers.ranks import world

    if resume == (recipe is not None):
        raise UserError("give a recipe, or --resume with the --out of a run; `agenthub recipes` lists recipes")
    if resume and out is None:
        raise UserError("--resume needs --out, the folder of the run to go on with")
    if resume and (suite is not None or replace):
        raise UserError("--resume goes on with the run in --out as it was; it takes no --suite and no --replace")
    overrides = [*([f"suite={suite}"] if suite else []), *(set_ or [])]
    if world()[0]:
        _follow(str(recipe), out if resume else None, overrides)
        return
    folder = _resumed(out, overrides) if resume and out else _new(str(recipe), overrides, out, replace)
    status = _run(folder, hub, tasks or [], fresh=not resume)
    if status:
        raise typer.Exit(status)


def _new(recipe: str, overrides: list[str], out: Path | None, replace: bool) -> RunFolder:
    import time

    from agenthub.trainers.config import load_recipe
    from agenthub.trainers.folder import RunFolder

    loaded = load_recipe(recipe, overrides)
    path = out or Path("runs") / f"{loaded.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return RunFolder.create(path, loaded, replace=replace)


def _resumed(out: Path, overrides: list[str]) -> RunFolder:
    from agenthub.trainers.folder import RunFolder

    return RunFolder.reopen(out, overrides)


def _follow(recipe: str, out: Path | None, overrides: list[str]) -> None:
    """Be one of the processes that torchrun started beside the first, which alone writes and speaks to the hub."""
    import signal

    from agenthub.config import load_yaml
    from agenthub.trainers.config import Recipe, load_recipe
    from agenthub.trainers.run import following, ranks_of

    # The first process decides what an interrupt means, and says when it is over.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    path = out / "config.yaml" if out else None
    loaded = load_yaml(path, Recipe, overrides=overrides) if path else load_recipe(recipe, overrides)
    with ranks_of(loaded) as ranks:
        following(loaded, ranks)


def _run(folder: RunFolder, hub: str | None, tasks: list[Path], *, fresh: bool) -> int:
    """Train to the end or to a signal; the exit status. A fresh run that cannot even begin leaves no run behind.

    Raises:
        UserError: the disk is full, or what the run needs is not there.
    """
    import signal

    from agenthub.cli.signals import run_until_signal
    from agenthub.errors import NO_ROOM, AgenthubError, UserError
    from agenthub.trainers.progress import Terminal
    from agenthub.trainers.report import write_report
    from agenthub.trainers.run import load_models, ranks_of, train

    reporter = Terminal(folder.recipe.updates)

    def interrupted() -> None:
        reporter.note(f"interrupted; go on with: agenthub train --resume --out {folder.path}")

    try:
        with ranks_of(folder.recipe) as ranks:
            models = load_models(folder.recipe)
            work = train(folder, models, reporter, url=hub, tasks=tasks, ranks=ranks)
            caught = run_until_signal(work, interrupted)
    except KeyboardInterrupt:
        interrupted()
        caught = signal.SIGINT
    except AgenthubError:
        if fresh:
            folder.take_back()
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        more = f"with more room, go on with: agenthub train --resume --out {folder.path}"
        raise UserError(f"{folder.path}: {error.strerror}; {more}") from error
    finally:
        folder.close()
    if caught:
        return 128 + caught
    reporter.note(f"report: {write_report(folder.path)}")
    return 0
