"""Pages with things to drag."""

from __future__ import annotations

import re

from tests.browser.oracles.view import Play, View, solves


def drag(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f"mouse_drag_and_drop({start[0]:.1f}, {start[1]:.1f}, {end[0]:.1f}, {end[1]:.1f})"


@solves("drag-circle", "drag-single-shape")
def shape(view: View) -> Play:
    it = next(node for node in view.one("svg").walk() if node.tag in ("circle", "rect", "polygon"))
    x, y = it.middle
    across, down = {"up": (0, -30), "down": (0, 30), "left": (-30, 0), "right": (30, 0)}[
        re.search(r"(up|down|left|right)", view.goal)[1]  # type: ignore[index]
    ]
    view = yield drag((x, y), (x + across, y + down))
    yield view.submit


@solves("drag-items")
def items(view: View) -> Play:
    name = re.search(r"Drag ([\w-]+)", view.goal)[1]  # type: ignore[index]
    rows = [it for it in view.all("li")]
    here = next(index for index, it in enumerate(rows) if it.text.strip() == name)
    place = re.search(r"(\d+)(?:st|nd|rd|th)", view.goal)
    there = int(place[1]) - 1 if place else here + (1 if "down" in view.goal else -1)
    if "top" in view.goal or "bottom" in view.goal:
        there = 0 if "top" in view.goal else len(rows) - 1
    start, end = rows[here].middle, rows[there].middle
    step = 6 if there > here else -6
    yield drag(start, (end[0], end[1] + step))


@solves("drag-sort-numbers")
def numbers(view: View) -> Play:
    for _ in range(8):
        rows = view.all("li")
        values = [int(it.text) for it in rows]
        wrong = next((index for index, value in enumerate(values) if value != sorted(values)[index]), None)
        if wrong is None:
            break
        source = values.index(sorted(values)[wrong])
        start, end = rows[source].middle, rows[wrong].middle
        view = yield drag(start, (end[0], end[1] - 6))
    yield view.submit


@solves("resize-textarea")
def resize(view: View) -> Play:
    handle = view.one(cls="ui-resizable-se")
    x, y = handle.middle
    amount = -25 if "smaller" in view.goal else 25
    across, down = (0, amount) if "height" in view.goal else (amount, 0)
    view = yield drag((x, y), (x + across, y + down))
    yield view.submit


@solves("highlight-text-2")
def highlight_nth(view: View) -> Play:
    number = int(re.search(r"(\d)", view.goal)[1])  # type: ignore[index]
    x, y, width, height = view.all("p")[number - 1].box
    view = yield drag((x + 1, y + 3), (x + width - 2, y + height - 3))
    yield view.submit
