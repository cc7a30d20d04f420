"""The mouse and the keyboard of one episode: which buttons and keys are down, and the events that change it."""

from __future__ import annotations

from typing import Any

from agenthub.sandboxes.browser.keys import Key, combination, key_of, typed
from agenthub.sandboxes.browser.page import Page

__all__ = ["Hands"]

Point = tuple[float, float]
_BITS = {"left": 1, "right": 2, "middle": 4}
_AT_ONCE = 64
"""Events that are sent before the first of them is waited for."""


class Hands:
    """What is held down, and where the mouse is."""

    def __init__(self) -> None:
        self._buttons = 0
        self._held: dict[str, Key] = {}
        self._at: Point = (0.0, 0.0)
        self.used = False
        """Anything was moved or pressed since `rest`."""

    @property
    def _modifiers(self) -> int:
        return sum({key.modifier for key in self._held.values()})

    async def rest(self, page: Page) -> None:
        """Let everything go and take the mouse out of the way. Raises Gone, Refused."""
        if not self.used:
            return
        for name, bit in _BITS.items():
            if self._buttons & bit:
                await self.up(page, self._at, name)
        for key in list(self._held):
            await self.key_up(page, key)
        await self.move(page, (0.0, 0.0))
        self.used = False

    async def move(self, page: Page, point: Point) -> None:
        """Move the mouse. Raises Gone, Refused, as all here do."""
        await self._mouse(page, "mouseMoved", point, "none")

    async def down(self, page: Page, point: Point, button: str, count: int = 1) -> None:
        """Press a button."""
        await page.all(self._mouse(page, "mouseMoved", point, "none"), self._pressed(page, point, button, count))

    async def up(self, page: Page, point: Point, button: str, count: int = 1) -> None:
        """Let a button go."""
        moved = self._mouse(page, "mouseMoved", point, button if self._buttons else "none")
        await page.all(moved, self._released(page, point, button, count))

    async def click(self, page: Page, point: Point, button: str, count: int, held: int = 0) -> None:
        """Click `count` times, with keys held by their bits."""
        sent = [self._mouse(page, "mouseMoved", point, "none", held=held)]
        for number in range(1, count + 1):
            sent.append(self._pressed(page, point, button, number, held))
            sent.append(self._released(page, point, button, number, held))
        await page.all(*sent)

    async def drag(self, page: Page, start: Point, end: Point) -> None:
        """Press at a point, move to another and let go there."""
        await self.down(page, start, "left")
        steps = 4
        for step in range(1, steps + 1):
            part = step / steps
            point = (start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part)
            await self._mouse(page, "mouseMoved", point, "left")
        await self._mouse(page, "mouseMoved", end, "left")
        await self._released(page, end, "left", 1)

    async def wheel(self, page: Page, point: Point, across: float, down: float) -> None:
        """Turn the wheel."""
        await self._mouse(page, "mouseWheel", point, "none", deltaX=across, deltaY=down)

    async def press(self, page: Page, text: str) -> None:
        """A key or combination. Raises UserError where it has none of that name."""
        held, key = combination(text)
        for each in held:
            await self._key(page, "keyDown", each)
        await page.all(self._key(page, "keyDown", key), self._key(page, "keyUp", key))
        for each in reversed(held):
            await self._key(page, "keyUp", each)

    async def key_down(self, page: Page, name: str) -> None:
        """Press a key and hold it. Raises UserError."""
        _, key = combination(name)
        await self._key(page, "keyDown", key)

    async def key_up(self, page: Page, name: str) -> None:
        """Let a key go. Raises UserError."""
        await self._key(page, "keyUp", key_of(name))

    async def type(self, page: Page, text: str) -> None:
        """Every key of a text; a character without a key is inserted."""
        sent: list[Any] = []
        for key in typed(text):
            if isinstance(key, str):
                sent.append(page.call("Input.insertText", text=key))
            else:
                sent += [self._key(page, "keyDown", key), self._key(page, "keyUp", key)]
            if len(sent) >= _AT_ONCE:
                await page.all(*sent)
                sent.clear()
        await page.all(*sent)

    def _pressed(self, page: Page, point: Point, button: str, count: int, held: int = 0) -> Any:
        self._buttons |= _BITS[button]
        return self._mouse(page, "mousePressed", point, button, held=held, clickCount=count)

    def _released(self, page: Page, point: Point, button: str, count: int, held: int = 0) -> Any:
        self._buttons &= ~_BITS[button]
        return self._mouse(page, "mouseReleased", point, button, held=held, clickCount=count)

    def _mouse(self, page: Page, kind: str, point: Point, button: str, *, held: int = 0, **more: Any) -> Any:
        self.used, self._at = True, point
        where = {"x": point[0], "y": point[1]}
        return page.call(
            "Input.dispatchMouseEvent",
            type=kind,
            **where,
            button=button,
            buttons=self._buttons,
            modifiers=self._modifiers | held,
            **more,
        )

    def _key(self, page: Page, kind: str, key: Key) -> Any:
        self.used = True
        if kind == "keyDown":
            self._held[key.key] = key
        else:
            self._held.pop(key.key, None)
        bits = self._modifiers | (8 if key.shift else 0)
        text = key.text if kind == "keyDown" and not bits & 7 else ""
        given: dict[str, Any] = {"text": text, "unmodifiedText": text} if text else {}
        name = "rawKeyDown" if kind == "keyDown" and not text else kind
        return page.call(
            "Input.dispatchKeyEvent",
            type=name,
            key=key.key,
            code=key.code,
            windowsVirtualKeyCode=key.number,
            modifiers=bits,
            **given,
        )
