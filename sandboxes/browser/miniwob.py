"""The contract of a MiniWoB++ page: how an episode of it begins, and what its end is worth.

The page's own score is believed only as the frozen copy tells it (guard.js): told once, at the moment of the end, by a
call that came out of the page's own files. Time does not lower it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from agenthub.errors import UserError
from agenthub.sandboxes.browser.page import Page, Rules
from agenthub.sandboxes.browser.pipe import Refused

__all__ = ["ORIGIN", "Ended", "begin", "ended", "pages"]

ORIGIN = "http://miniwob.test"
_START = "function(seed){return this.start(seed)}"
_LOAD_MS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the page ended its episode."""

    raw: float
    """The score before time is taken into account; 1.0 is success."""
    reward: float
    """As the page scales it by the time that was taken, by its own clock."""
    reason: str
    believed: bool
    """It was told by the page's own code."""


def pages() -> list[str]:
    """Names of all pages, sorted.

    Raises:
        UserError: the package is not installed.
    """
    from agenthub.sandboxes.browser.site import miniwob_folder

    return sorted(path.stem for path in (miniwob_folder() / "miniwob").glob("*.html"))


async def begin(page: Page, seed: int, *, fresh: bool) -> tuple[str, dict[str, str]]:
    """Start the episode of a seed: its goal, and the goal's fields where the page has them.

    Raises:
        UserError: the page is none of MiniWoB++, or is broken.
        Gone: the page is gone.
    """
    try:
        if fresh:
            await page.settle(_LOAD_MS)
        page.rules.told.clear()
        told = await page.run(_START, [{"value": seed}])
        if fresh:
            # Pictures that style sheets name are asked for when they are painted first.
            await page.settle(0, frames=True)
    except Refused as refused:
        raise UserError(f"page {page.url} cannot be started: {refused}") from refused
    if not isinstance(told, dict) or not isinstance(told.get("goal"), str):
        raise UserError(f"page {page.url} has no goal")
    fields = told.get("fields")
    return told["goal"], {str(k): str(v) for k, v in fields.items()} if isinstance(fields, dict) else {}


def ended(rules: Rules) -> Ended | None:
    """How the episode ended, by the first that was told; None while it goes on."""
    if not rules.told:
        return None
    try:
        told: Any = json.loads(rules.told[0])
        raw, reward, stack = float(told["raw"]), float(told["reward"]), str(told["stack"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Ended(raw=0.0, reward=0.0, reason="the end of the page cannot be read", believed=False)
    callers = [line for line in stack.splitlines()[1:] if ORIGIN + "/" in line]
    believed = bool(callers) and math.isfinite(raw)
    reason = str(told.get("reason", ""))[:500] if believed else "the page was ended by a script that is not its own"
    return Ended(raw=raw if believed else 0.0, reward=reward if believed else 0.0, reason=reason, believed=believed)
