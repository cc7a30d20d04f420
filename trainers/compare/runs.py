"""Runs a comparison, one training after the other, each in a process of its own: what is done is not done again.

A run that fails leaves its error beside its folder and the others go on; a comparison that is interrupted goes on where
it was, in the middle of a run too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agenthub.config import load_yaml
from agenthub.errors import ConfigError, UserError
from agenthub.trainers.compare.plan import Plan, Planned
from agenthub.trainers.config import Recipe
from agenthub.trainers.folder import RunFolder

__all__ = ["State", "Status", "folder_of", "run_all", "status_of"]

STOP_S = 20.0
"""A training that was interrupted and has not ended by then is killed."""
_SHOWN_CHARS = 600


class State(StrEnum):
    """How far a run is."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A run and how far it is."""

    run: Planned
    path: Path
    state: State
    error: str = ""


def folder_of(out: Path, run: Planned) -> Path:
    """Where a run is."""
    return out / "runs" / run.name


def status_of(out: Path, run: Planned) -> Status:
    """How far a run is, from its files."""
    path = folder_of(out, run)
    error = _error_file(path)
    if _is_done(path, run.recipe):
        return Status(run=run, path=path, state=State.DONE)
    if error.is_file():
        text = error.read_text(encoding="utf-8", errors="replace").strip()
        return Status(run=run, path=path, state=State.FAILED, error=text or "no reason was given")
    return Status(run=run, path=path, state=State.WAITING)


async def run_all(
    plan: Plan,
    out: Path,
    *,
    hub: str | None = None,
    tasks: Sequence[Path] = (),
    replace: bool = False,
    note: Callable[[str], None],
    after: Callable[[], None],
) -> list[Status]:
    """Do every run that is not done; failed ones are tried again.

    Args:
        hub, tasks: as `agenthub train` takes them. replace: drop runs of another plan that are in the way.
        note: told a line for each run. after: called when one has ended.

    Raises:
        UserError: the folder holds runs of another plan, or cannot be written.
        asyncio.CancelledError: interrupted; the same call goes on.
    """
    runs = plan.runs()
    for run in runs:
        _make(out, run, replace)
    for number, run in enumerate(runs, start=1):
        where = f"[{number}/{len(runs)}] {run.arm}, seed {run.seed}"
        if status_of(out, run).state is State.DONE:
            note(f"{where}: done before")
            continue
        note(f"{where} ...")
        started = time.monotonic()
        error = await _train(folder_of(out, run), hub, tasks)
        file = _error_file(folder_of(out, run))
        if error is None and not _is_done(folder_of(out, run), run.recipe):
            error = "it ended before its last update"
        if error is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(error + "\n", encoding="utf-8")
        ended = "done" if error is None else f"failed: {error.splitlines()[-1]}"
        note(f"{where}: {ended} after {time.monotonic() - started:.0f} s")
        after()
    return [status_of(out, run) for run in runs]


def _make(out: Path, run: Planned, replace: bool) -> None:
    """The run's folder with its recipe, where there is none."""
    path = folder_of(out, run)
    if (path / "config.yaml").is_file():
        if _same(path, run.recipe):
            return
        if not replace:
            raise UserError(f"{path} holds a run of another comparison; take another --out, or --replace to drop it")
    RunFolder.create(path, run.recipe, replace=True).close()
    _error_file(path).unlink(missing_ok=True)


def _same(path: Path, recipe: Recipe) -> bool:
    try:
        return load_yaml(path / "config.yaml", Recipe) == recipe
    except ConfigError:
        return False


def _error_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.error")


def _is_done(path: Path, recipe: Recipe) -> bool:
    """Its last update and, where the recipe evaluates, the evaluation after it are on file."""
    rows = []
    with contextlib.suppress(OSError):
        for line in (path / "metrics.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    ended = [row for row in rows if isinstance(row, dict) and row.get("update") == recipe.updates]
    return any("eval" not in row for row in ended) and (
        recipe.eval is None or any("eval" in row for row in ended) or recipe.updates == 0
    )


async def _train(path: Path, hub: str | None, tasks: Sequence[Path]) -> str | None:
    """Train in a folder; None, or what it said when it failed."""
    command = [sys.executable, "-m", "agenthub", "train", "--resume", "--out", str(path)]
    command += [*(["--hub", hub] if hub else []), *(part for task in tasks for part in ("--tasks", str(task)))]
    with path.with_name(f"{path.name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, said = await process.communicate()
        except asyncio.CancelledError:
            await asyncio.shield(_stop(process))
            raise
        log.write(said)
    if process.returncode == 0:
        return None
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines)[-_SHOWN_CHARS:] or f"it ended with status {process.returncode}"


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a training so that it can be resumed."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
