"""What is shown of a page after an action: the channels that a task asks for; nothing is computed for the others."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agenthub.sandboxes.browser.engine import Context
from agenthub.sandboxes.browser.page import Page
from agenthub.sandboxes.browser.settings import CHANNELS, Settings
from agenthub.sandboxes.browser.snapshot import STYLES, Ids, Snapshot, axtree, pruned, snapshot

__all__ = ["Facts", "Picture", "Seen", "look"]

_MOST_CHARS = 60_000
_TREES = frozenset(("axtree", "dom", "focused", "marks", "som"))
_AX = frozenset(("axtree", "focused"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known without asking the page."""

    goal: str
    action: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image of the window."""

    channel: str
    data: bytes
    """PNG or WebP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was looked at."""

    texts: tuple[tuple[str, str], ...]
    """(channel, text), in the order of CHANNELS; empty ones are left out."""
    pictures: tuple[Picture, ...] = ()
    cut: bool = False
    """A text was too long."""


async def look(context: Context, settings: Settings, ids: Callable[[Page], Ids], facts: Facts) -> Seen:
    """Look at the tab in front.

    Raises:
        Gone, Refused: as `Page.call`.
    """
    page, wanted = context.page, frozenset(settings.channels)
    waiting: dict[str, Any] = {}
    if wanted & _TREES:
        waiting["snapshot"] = page.call("DOMSnapshot.captureSnapshot", computedStyles=list(STYLES))
    if wanted & _AX:
        waiting["nodes"] = page.call("Accessibility.getFullAXTree")
    if wanted & {"screenshot", "som"}:
        more = {"quality": 90} if settings.image == "webp" else {}
        waiting["shot"] = page.call("Page.captureScreenshot", format=settings.image, optimizeForSpeed=True, **more)
    taken = {name: await answer for name, answer in waiting.items()}
    texts: dict[str, str] = {
        "goal": facts.goal,
        "url": page.url,
        "title": page.title,
        "tabs": _tabs(context) if "tabs" in wanted else "",
        "action": facts.action,
        "error": facts.error,
        "elapsed": f"{page.elapsed_ms} ms",
    }
    shown = None
    if "snapshot" in taken:
        shown = snapshot(taken["snapshot"], ids(page))
        texts |= _trees(shown, taken, wanted, ids(page), settings)
    pictures = _pictures(taken["shot"]["data"], shown, wanted, settings) if "shot" in taken else ()
    rows = [(name, texts[name]) for name in CHANNELS if name in wanted and texts.get(name)]
    cut = any(len(text) > _MOST_CHARS for _, text in rows)
    return Seen(texts=tuple((name, _cut(text)) for name, text in rows), pictures=pictures, cut=cut)


def _trees(
    shown: Snapshot, taken: dict[str, Any], wanted: frozenset[str], ids: Ids, settings: Settings
) -> dict[str, str]:
    texts: dict[str, str] = {}
    if "nodes" in taken:
        texts["axtree"], texts["focused"] = axtree(taken["nodes"]["nodes"], shown, ids)
    if "dom" in wanted:
        texts["dom"] = pruned(shown.root)
    if wanted & {"marks", "som"}:
        rows = [
            f"[{name}] " + ",".join(f"{value:.4g}" for value in box)
            for name, box in _marks(shown, settings.width, settings.height)
        ]
        texts["marks"] = "\n".join(rows)
    return texts


def _marks(shown: Snapshot, width: int, height: int) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Id and box of what can be clicked and is in sight."""
    found = []
    for element in shown.root.all():
        if not element.clickable or element.box is None or element.styles.get("visibility") == "hidden":
            continue
        x, y, across, down = element.box
        if across > 0 and down > 0 and x < width and y < height and x + across > 0 and y + down > 0:
            found.append((element.id, element.box))
    return found


def _pictures(data: str, shown: Snapshot | None, wanted: frozenset[str], settings: Settings) -> tuple[Picture, ...]:
    image = base64.b64decode(data)
    made = []
    if "screenshot" in wanted:
        made.append(Picture(channel="screenshot", data=image))
    if "som" in wanted and shown is not None:
        from agenthub.sandboxes.browser.overlay import marked

        rows = _marks(shown, settings.width, settings.height)
        made.append(Picture(channel="som", data=marked(image, rows, settings.image)))
    return tuple(made)


def _tabs(context: Context) -> str:
    rows: Sequence[Page] = context.pages
    return "\n".join(
        f"{index}{'*' if index == context.active else ''} {page.title!r} {page.url}" for index, page in enumerate(rows)
    )


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARS:
        return text
    return f"{text[:_MOST_CHARS]}\n... {len(text) - _MOST_CHARS} more characters are not shown"
