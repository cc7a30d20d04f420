"""Pages with shapes to find, measure or draw."""

from __future__ import annotations

import re

from tests.browser.oracles.lists import drag
from tests.browser.oracles.view import Node, Play, View, solves


def click(x: float, y: float) -> str:
    return f"mouse_click({x:.1f}, {y:.1f})"


@solves("draw-line")
def line(view: View) -> Play:
    x, y = view.one("circle").middle
    reach = (0, 20) if "vertical" in view.goal else (20, 0)
    view = yield drag((x - reach[0], y - reach[1]), (x + reach[0], y + reach[1]))
    yield view.submit


def _colour(node: Node) -> str:
    return node.attributes.get("fill", "")


def _kind(node: Node) -> str:
    if node.tag == "text":
        return "digit" if node.text.isdigit() else "letter"
    if node.tag == "polygon":
        return "triangle"
    return {"rect": "rectangle", "circle": "circle"}.get(node.tag, node.tag)


@solves("click-shape")
def click_shape(view: View) -> Play:
    size, colour, what = _wanted(view.goal)
    nodes = _shapes(view)
    for node in nodes:
        if _fits(node, size, colour, what):
            yield f"click('{node.id}')"
            return


@solves("count-shape")
def count_shape(view: View) -> Play:
    wanted = re.search(r"How many (.*?)(?: are there)?\?", view.goal)[1]  # type: ignore[index]
    size, colour, what = _wanted(wanted)
    count = sum(_fits(node, size, colour, what) for node in _shapes(view))
    yield f"click('{view.one('button', text=str(count)).id}')"


def _shapes(view: View) -> list[Node]:
    svg = view.one("svg")
    return [
        it for it in svg.walk() if it.tag in ("rect", "circle", "polygon", "text") and _colour(it) not in ("", "none")
    ]


_COLOURS = ("red", "green", "blue", "aqua", "black", "magenta", "yellow")


def _wanted(text: str) -> tuple[str, str, str]:
    words = re.sub(r"[^\w ]", " ", text.removeprefix("Click on a ").removeprefix("Click on an ")).split()
    size = next((it for it in words if it in ("large", "small")), "")
    colour = next((it for it in words if it in _COLOURS), "")
    rest = [it for it in words if it not in (size, colour)]
    return size, colour, rest[-1] if rest else ""


def _fits(node: Node, size: str, colour: str, what: str) -> bool:
    kinds = {"items": "", "item": "", "shape": "shape", "shapes": "shape"}
    plain = kinds.get(what, what.removesuffix("s") if len(what) > 1 else what)
    large = max(node.box[2:]) > 14 if node.tag != "text" else node.box[3] > 16
    if size and (size == "large") != large:
        return False
    if colour and _colour(node) != colour:
        return False
    if plain == "shape":
        return node.tag != "text"
    return not plain or _kind(node) == plain or (node.tag == "text" and node.text == plain)
