"""Doing what a policy asks for: input events into the tab in front, as a person's hands would make them.

No script runs in the page for it. Where an element is, and whether something lies over it, the browser's layout tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agenthub.errors import UserError
from agenthub.sandboxes.browser import fields
from agenthub.sandboxes.browser.actions import Action
from agenthub.sandboxes.browser.engine import Context
from agenthub.sandboxes.browser.hands import Hands
from agenthub.sandboxes.browser.keys import MODIFIERS
from agenthub.sandboxes.browser.page import Page
from agenthub.sandboxes.browser.pipe import Refused
from agenthub.sandboxes.browser.snapshot import Ids
from agenthub.sandboxes.browser.urls import allowed

__all__ = ["Actor"]

Point = tuple[float, float]
_INSET = (
    (0.5, 0.5),
    (0.25, 0.25),
    (0.75, 0.25),
    (0.25, 0.75),
    (0.75, 0.75),
    (0.1, 0.5),
    (0.9, 0.5),
    (0.5, 0.1),
    (0.5, 0.9),
)


class Actor:
    """Acts in one context."""

    def __init__(self, context: Context, hands: Hands, ids: Callable[[Page], Ids]) -> None:
        self._context, self._hands, self._ids = context, hands, ids
        self._verbs: Mapping[str, Callable[[Page, Mapping[str, Any]], Awaitable[None]]] = {
            "click": self._click,
            "dblclick": self._click_twice,
            "hover": self._hover,
            "focus": self._focus,
            "fill": self._fill,
            "clear": self._clear,
            "press": self._press,
            "select_option": self._select,
            "drag_and_drop": self._drag,
            "scroll": self._scroll,
            "mouse_move": self._mouse_move,
            "mouse_click": self._mouse_click,
            "mouse_dblclick": self._mouse_twice,
            "mouse_down": self._mouse_down,
            "mouse_up": self._mouse_up,
            "mouse_drag_and_drop": self._mouse_drag,
            "keyboard_press": self._keyboard_press,
            "keyboard_down": self._keyboard_down,
            "keyboard_up": self._keyboard_up,
            "keyboard_type": self._keyboard_type,
            "keyboard_insert_text": self._keyboard_insert,
            "goto": self._goto,
            "go_back": self._back,
            "go_forward": self._forward,
            "new_tab": self._new_tab,
            "tab_focus": self._tab_focus,
            "tab_close": self._tab_close,
        }

    async def act(self, action: Action) -> None:
        """Do it; the page has been told of it when this returns, and has not settled yet.

        Raises:
            UserError: it cannot be done: no such element, nothing to hit, an address that is refused.
            Gone: the page is gone.
        """
        try:
            await self._verbs[action.verb](self._context.page, action.arguments)
        except Refused as refused:
            raise UserError(f"{action.verb}: {refused}") from refused

    async def _click(self, page: Page, given: Mapping[str, Any], count: int = 1) -> None:
        held = 0
        for name in given["modifiers"]:
            if name not in MODIFIERS:
                raise UserError(f"no key to hold is named {name!r:.40}; expected {', '.join(MODIFIERS)}")
            held |= MODIFIERS[name]
        point = await self._point(page, given["id"])
        await self._hands.click(page, point, given["button"], count, held)

    async def _click_twice(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._click(page, given, count=2)

    async def _hover(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.move(page, await self._point(page, given["id"]))

    async def _focus(self, page: Page, given: Mapping[str, Any]) -> None:
        await page.call("DOM.focus", backendNodeId=self._node(page, given["id"]))

    async def _fill(self, page: Page, given: Mapping[str, Any]) -> None:
        await fields.fill(page, self._hands, self._node(page, given["id"]), given["value"])

    async def _clear(self, page: Page, given: Mapping[str, Any]) -> None:
        await fields.fill(page, self._hands, self._node(page, given["id"]), "")

    async def _press(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._focus(page, given)
        await self._hands.press(page, given["key"])

    async def _select(self, page: Page, given: Mapping[str, Any]) -> None:
        await fields.select(page, self._hands, self._node(page, given["id"]), given["options"], self._spot)

    async def _drag(self, page: Page, given: Mapping[str, Any]) -> None:
        start = await self._point(page, given["from_id"])
        await self._hands.drag(page, start, await self._point(page, given["to_id"], covered=True))

    async def _scroll(self, page: Page, given: Mapping[str, Any]) -> None:
        rules = self._context.rules
        middle = (rules.width / 2, rules.height / 2)
        point = (given["x"], given["y"]) if given["x"] >= 0 and given["y"] >= 0 else middle
        await self._hands.wheel(page, point, given["delta_x"], given["delta_y"])

    async def _mouse_move(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.move(page, (given["x"], given["y"]))

    async def _mouse_click(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.click(page, (given["x"], given["y"]), given["button"], 1)

    async def _mouse_twice(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.click(page, (given["x"], given["y"]), given["button"], 2)

    async def _mouse_down(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.down(page, (given["x"], given["y"]), given["button"])

    async def _mouse_up(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.up(page, (given["x"], given["y"]), given["button"])

    async def _mouse_drag(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.drag(page, (given["from_x"], given["from_y"]), (given["to_x"], given["to_y"]))

    async def _keyboard_press(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.press(page, given["key"])

    async def _keyboard_down(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.key_down(page, given["key"])

    async def _keyboard_up(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.key_up(page, given["key"])

    async def _keyboard_type(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._hands.type(page, given["text"])

    async def _keyboard_insert(self, page: Page, given: Mapping[str, Any]) -> None:
        await page.call("Input.insertText", text=given["text"])

    async def _goto(self, page: Page, given: Mapping[str, Any]) -> None:
        url = allowed(given["url"], self._context.rules.site.origin)
        if self._leaves(url):
            return
        why = await page.go(url)
        if why and not self._context.rules.left:
            raise UserError(f"goto: {url!r:.200} could not be opened: {why}")

    async def _back(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._history(page, -1)

    async def _forward(self, page: Page, given: Mapping[str, Any]) -> None:
        await self._history(page, 1)

    def _leaves(self, where: str) -> bool:
        """True where the task is bound to its page, which this would leave: that is noted, and need not be done."""
        rules = self._context.rules
        if rules.locked:
            rules.left = rules.left or where
        return rules.locked

    async def _history(self, page: Page, by: int) -> None:
        if self._leaves("a page of its history"):
            return
        told = await page.call("Page.getNavigationHistory")
        index = told["currentIndex"] + by
        if not 0 <= index < len(told["entries"]) or told["entries"][index]["url"] in ("", "about:blank"):
            raise UserError("there is no page to go to in that direction")
        await page.call("Page.navigateToHistoryEntry", entryId=told["entries"][index]["id"])

    async def _new_tab(self, page: Page, given: Mapping[str, Any]) -> None:
        if self._leaves("a new tab"):
            return
        if len(self._context.pages) >= 16:
            raise UserError("there are 16 tabs; close one first")
        await self._context.open("about:blank")

    async def _tab_focus(self, page: Page, given: Mapping[str, Any]) -> None:
        if given["index"] >= len(self._context.pages):
            raise UserError(f"there is no tab {given['index']}; the last is {len(self._context.pages) - 1}")
        self._context.active = given["index"]
        await self._context.page.call("Page.bringToFront")

    async def _tab_close(self, page: Page, given: Mapping[str, Any]) -> None:
        if len(self._context.pages) == 1 and self._leaves("no page at all"):
            return
        if len(self._context.pages) == 1:
            await self._context.open("about:blank")
            await self._context.close(page)
            return
        await self._context.close(page)

    def _node(self, page: Page, name: str) -> int:
        node = self._ids(page).node(name)
        if node is None:
            raise UserError(f"no element has the id {name!r:.40}")
        return node

    async def _point(self, page: Page, name: str, *, covered: bool = False) -> Point:
        """Where an element can be hit. Raises UserError."""
        return await self._spot(page, self._node(page, name), f"element {name}", covered)

    async def _spot(self, page: Page, node: int, what: str, covered: bool = False) -> Point:
        shown = page.call("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
        try:
            quads = page.call("DOM.getContentQuads", backendNodeId=node)
            _, told, layout = await page.all(shown, quads, page.call("Page.getLayoutMetrics"))
        except Refused as refused:
            raise UserError(f"{what} is not there to be seen: {refused}") from refused
        points = [point for quad in told["quads"] for point in _points(quad)]
        points = [(x, y) for x, y in points if 0 <= x < page.rules.width and 0 <= y < page.rules.height]
        if not points:
            raise UserError(f"{what} has no size, or is out of sight")
        if covered:
            return points[0]
        seen = layout["cssVisualViewport"]
        for x, y in points[:18]:
            if await self._hits(page, node, (x + seen["pageX"], y + seen["pageY"])):
                return x, y
        raise UserError(f"{what} cannot be hit: something lies over it")

    async def _hits(self, page: Page, node: int, point: Point) -> bool:
        """True where a click at a point of the document goes to the node or to what is in it."""
        x, y = int(point[0]), int(point[1])
        try:
            there = await page.call("DOM.getNodeForLocation", x=x, y=y, includeUserAgentShadowDOM=False)
        except Refused:
            return False
        hit = there["backendNodeId"]
        if hit == node:
            return True
        told = await page.call("DOM.describeNode", backendNodeId=node, depth=-1, pierce=True)
        return hit in _below(told["node"])


def _points(quad: Sequence[float]) -> list[Point]:
    """Places in a quadrilateral (x1, y1, ... x4, y4), the middle first; none where it has no area."""
    xs, ys = quad[0::2], quad[1::2]
    if max(xs) - min(xs) < 0.5 or max(ys) - min(ys) < 0.5:
        return []
    made = []
    for across, down in _INSET:
        top = (xs[0] + (xs[1] - xs[0]) * across, ys[0] + (ys[1] - ys[0]) * across)
        bottom = (xs[3] + (xs[2] - xs[3]) * across, ys[3] + (ys[2] - ys[3]) * across)
        made.append((top[0] + (bottom[0] - top[0]) * down, top[1] + (bottom[1] - top[1]) * down))
    return made


def _below(node: Mapping[str, Any]) -> set[int]:
    """The browser's numbers of everything below a described node."""
    found: set[int] = set()
    waiting = [node]
    while waiting:
        it = waiting.pop()
        found.add(it["backendNodeId"])
        for key in ("children", "shadowRoots", "pseudoElements"):
            waiting += it.get(key, ())
    return found
