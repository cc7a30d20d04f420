"""`agenthub report`: write the report of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    run: Annotated[Path, typer.Argument(help="folder of a run, also one that is not finished")],
    out: Annotated[Path | None, typer.Option(help="file to write; RUN/report.html where left out")] = None,
) -> None:
    """Write a page with curves, evaluations and sample episodes; it opens from the file system."""
    from agenthub.trainers.report import write_report

    print(write_report(run, out))
