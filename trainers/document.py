"""docs/methods.md: every trainer plug-in and recipe, from the registry, the docstrings and the YAML files alone."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from agenthub.registry import assumed, registry
from agenthub.trainers.aggregate import MODES
from agenthub.trainers.config import list_recipes
from agenthub.trainers.plugins import NEEDS

__all__ = ["KINDS", "methods"]

KINDS = {
    "shaping": "adds a component to the rewards",
    "filter": "who trains, who counts in the group, and why the others do not",
    "credit": "from rewards to an advantage for each action token",
    "correction": "weights for the gap between the engine that samples and the model that trains",
    "loss": "token losses; `regularise` adds further ones",
    "sampler": "which tasks are played next, and what is played again",
    "rollout": "how many turns, which prefix, where to branch",
}
"""The trainer's kinds in the order in which they run."""


def methods() -> str:
    """The whole page."""
    lines = [
        "# Methods",
        "",
        "Written by `scripts/methods-doc` from the registry, the docstrings and the recipes; a test holds it in step.",
        "",
        "An update runs: shaping, filter, credit, correction, loss, aggregation. `experimental` marks what no",
        "published number or code backs, with what is assumed. Options are given with their defaults; `needs` is what",
        "a plug-in asks for beyond log-probabilities; a recipe that does not give it is refused before a run starts.",
        "",
        "## Recipes",
        "| name | plug-ins | source | tier | what it is | what is known |",
        "|---|---|---|---|---|---|",
    ]
    for row in list_recipes():
        cells = (row["name"], row["kind"], row["source"], row["tier"], row["description"], row["known"])
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    for kind, what in KINDS.items():
        lines += ["", f"## {kind}", f"{what[0].upper()}{what[1:]}.", ""]
        for name in registry(kind).names():
            lines += _plugin(kind, name)
    lines += ["", "## Aggregation", ", ".join(f"`{mode}`" for mode in MODES) + "."]
    lines += ["", "## Needs", "| need | what gives it |", "|---|---|"]
    lines += [f"| {need} | {_cell(what)} |" for need, what in sorted(NEEDS.items())]
    return "\n".join(lines) + "\n"


def _plugin(kind: str, name: str) -> Iterator[str]:
    cls = registry(kind).load(name)
    text = inspect.getdoc(cls) or ""
    taken = assumed(kind, name)
    yield f"### {kind} `{name}`" + (" (experimental)" if taken else "")
    yield from (line.rstrip() for line in text.splitlines())
    notes = []
    if taken:
        notes.append(f"Assumed: {taken}.")
    if getattr(cls, "needs", None):
        notes.append(f"Needs: {', '.join(sorted(cls.needs))}.")
    if kind == "credit":
        notes.append("Group-centred." if cls.group_centred else "Not group-centred.")
    options = ", ".join(f"`{spec.name}: {_default(spec)}`" for spec in dataclasses.fields(cls) if spec.init)
    if options:
        notes.append(f"Options: {options}.")
    if notes:
        yield ""
        yield " ".join(notes)
    yield ""


def _default(spec: Any) -> str:
    value = spec.default
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
