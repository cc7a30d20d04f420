"""Tasks from the pages of MiniWoB++: each page with a run of seeds.

What is known of a page (miniwob.json): how it can be reset, how long a solution is and how many elements it shows,
which is CRAFT-GUI's measure of difficulty (arXiv 2508.11360).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["NEEDS", "generate", "pages"]

NEEDS = ("miniwob",)
_KEYS = ("pages", "channels", "reset")
_LENGTHS, _ELEMENTS = (2, 5, 12), (15, 40, 100)
"""Up to so many actions, and so many elements, a task is of level 1, 2 or 3; above, of level 4."""


@cache
def pages() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each page, by name: `reset`, `steps`, `measured`, `elements`."""
    text = Path(__file__).with_name("miniwob.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def generate(config: Mapping[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Task rows: the pages in turn with `seed`, then with the next seed, and so on.

    Args:
        config: `pages`, names of those wanted (all where absent); `channels`, what an action shows; `reset`, the rung
            of the ladder (where absent the quickest that leaves nothing of the last episode).

    Raises:
        UserError: a key or a page is not known.
    """
    for key in config:
        if key not in _KEYS:
            raise UnknownName("setting of the MiniWoB++ generator", key, _KEYS)
    wanted = config.get("pages", list(pages()))
    if not isinstance(wanted, (list, tuple)) or not wanted:
        raise UserError("the MiniWoB++ generator's `pages` is a list of names")
    for name in wanted:
        if name not in pages():
            raise UnknownName("page of MiniWoB++", str(name), pages())
    for index in range(count):
        yield _row(wanted[index % len(wanted)], seed + index // len(wanted), config)


def _row(page: str, seed: int, config: Mapping[str, Any]) -> dict[str, Any]:
    known = pages()[page]
    tool: dict[str, Any] = {
        "site": "miniwob",
        "page": page,
        "seed": seed,
        "width": 160,
        "height": 210,
        "reset": config.get("reset", known["reset"]),
    }
    if "channels" in config:
        tool["channels"] = list(config["channels"])
    return {
        "id": f"{page}-{seed:07d}",
        "prompt": {"user": "Do what the goal says, on the page in front of you."},
        "tools": [{"uses": "browser", "name": "browser", "config": tool}],
        "metadata": {
            "page": page,
            "seed": seed,
            "trajectory_length": known["steps"],
            "trajectory_length_measured": known["measured"],
            "elements": known["elements"],
            "difficulty": max(_level(known["steps"], _LENGTHS), _level(known["elements"], _ELEMENTS)),
        },
    }


def _level(value: float, bounds: tuple[int, ...]) -> int:
    return 1 + sum(value > bound for bound in bounds)
