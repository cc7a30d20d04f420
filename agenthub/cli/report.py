"""`agenthub report`: write the report of a run again, or the film strip of a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    run: Annotated[
        Path,
        typer.Argument(
            help="folder of a run, also one that is not finished; or a trajectory, as play --save writes it"
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="file to write; RUN/report.html or FILE.html where left out")] = None,
    episode: Annotated[int, typer.Option(min=1, help="which trajectory of a file, from 1")] = 1,
) -> None:
    """Write a page with curves, evaluations and sample episodes, or a film strip; it opens from the file system."""
    if run.is_file():
        print(_film(run, out, episode))
        return
    from agenthub.trainers.report import write_report

    print(write_report(run, out))


def _film(path: Path, out: Path | None, episode: int) -> Path:
    """Write the film strip of a trajectory; its images are in FILE.blobs beside it.

    Raises:
        UserError: the file holds no such trajectory, or the film strip cannot be written.
    """
    import json

    from agenthub.blobs import BlobStore
    from agenthub.codec import decode
    from agenthub.errors import UserError, WireError
    from agenthub.film import film
    from agenthub.records import Trajectory

    try:
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if len(rows) < episode:
        raise UserError(f"{path} has {len(rows)} trajectories; --episode {episode} is none of them")
    try:
        row = json.loads(rows[episode - 1])
        trajectory = decode(Trajectory, row.get("trajectory", row) if isinstance(row, dict) else row)
    except ValueError as error:
        raise UserError(f"{path}:{episode}: no trajectory: {error}") from None
    store = BlobStore(path.with_name(f"{path.name}.blobs"))

    def blob(sha256: str) -> bytes | None:
        try:
            return store.get(sha256)
        except WireError:
            return None

    written = out or path.with_suffix(".html")
    try:
        written.write_text(film(trajectory, blob), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{written} cannot be written: {error.strerror}") from error
    return written
