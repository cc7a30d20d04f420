"""`agenthub recipes`: list the recipes that ship."""

from __future__ import annotations

__all__ = ["command"]

COLUMNS = ("name", "kind", "source", "tier", "description")


def command() -> None:
    """List recipes: filter + credit + loss, where the method is from, and how far it was checked.

    The tiers: `learns` has a benchmark that shows it improve, `golden` has its numbers checked, `experimental` neither.
    """
    from agenthub.trainers.config import list_recipes

    rows = list_recipes()
    widths = [max(len(row[column]) for row in rows) for column in COLUMNS[:-1]]
    for row in rows:
        cells = [row[column].ljust(width) for column, width in zip(COLUMNS, widths, strict=False)]
        print("  ".join([*cells, row[COLUMNS[-1]]]))
