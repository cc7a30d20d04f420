"""`agenthub recipes`: list the recipes that ship."""

from __future__ import annotations

__all__ = ["command"]


def command() -> None:
    """List recipes: what they join, where the method is from, and how far each was checked."""
    from rich.console import Console
    from rich.table import Table

    from agenthub.trainers.config import list_recipes

    table = Table("recipe", "filter + credit + loss", "source", "tier", "what it is", box=None, pad_edge=False)
    for row in list_recipes():
        table.add_row(row["name"], row["kind"], row["source"], row["tier"], row["description"])
    Console(highlight=False).print(table)
