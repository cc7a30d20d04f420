"""Filling in forms by the keyboard: text, dates and times, lists."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agenthub.errors import UserError
from agenthub.sandboxes.browser.hands import Hands
from agenthub.sandboxes.browser.page import Page

__all__ = ["fill", "select"]

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_TIME = re.compile(r"(\d{2}):(\d{2})")
_UNTYPED = frozenset(("checkbox", "radio", "button", "submit", "reset", "image", "file", "hidden", "range", "color"))
Spot = Callable[[Page, int, str], Awaitable[tuple[float, float]]]


async def fill(page: Page, hands: Hands, node: int, value: str) -> None:
    """Replace what a field holds.

    Raises:
        UserError: it is no field that can be typed into, or the value does not fit its kind.
        Gone, Refused: as `Page.call`.
    """
    told = await page.call("DOM.describeNode", backendNodeId=node)
    attributes = _attributes(told["node"])
    tag, kind = told["node"]["nodeName"].upper(), attributes.get("type", "text").lower()
    if tag == "INPUT" and kind in _UNTYPED:
        raise UserError(f"fill: an input of type {kind} holds no text")
    if tag not in ("INPUT", "TEXTAREA") and "contenteditable" not in attributes:
        raise UserError(f"fill: a {tag.lower()} is no field of text")
    await page.call("DOM.focus", backendNodeId=node)
    if tag == "INPUT" and kind in ("date", "time"):
        await hands.type(page, _digits(kind, value))
        return
    await hands.press(page, "Control+a")
    if value:
        await page.call("Input.insertText", text=value)
    else:
        await hands.press(page, "Delete")


def _digits(kind: str, value: str) -> str:
    """What is typed into a field of an American date or time. Raises UserError."""
    match = (_DATE if kind == "date" else _TIME).fullmatch(value)
    if match is None:
        raise UserError(f"fill: {value!r:.40} is no {kind}; expected {'2016-05-17' if kind == 'date' else '17:05'}")
    if kind == "date":
        return f"{match[2]}{match[3]}{match[1]}"
    hour = int(match[1])
    return f"{(hour - 1) % 12 + 1:02d}{match[2]}{'PM' if hour >= 12 else 'AM'}"


async def select(page: Page, hands: Hands, node: int, wanted: Sequence[str], spot: Spot) -> None:
    """Select options by text or value: with the arrows in a list that opens, by clicks in one that stands open.

    Raises:
        UserError: it is no list, or has no such option.
        Gone, Refused: as `Page.call`.
    """
    told = await page.call("DOM.describeNode", backendNodeId=node, depth=-1)
    if told["node"]["nodeName"].upper() != "SELECT":
        raise UserError("select_option: the element is no list of options")
    options = _options(told["node"])
    chosen = []
    for text in wanted:
        found = [index for index, it in enumerate(options) if text.strip() in (it["text"], it["value"])]
        if not found:
            shown = ", ".join(repr(it["text"]) for it in options[:20])
            raise UserError(f"select_option: no option {text!r:.80}; there are {shown}")
        chosen.append(found[0])
    attributes = _attributes(told["node"])
    if "multiple" in attributes or int(attributes.get("size", "1") or 1) > 1:
        for number, index in enumerate(chosen):
            point = await spot(page, options[index]["node"], f"option {options[index]['text']!r:.80}")
            await hands.click(page, point, "left", 1, 2 if number else 0)
        return
    if len(chosen) != 1:
        raise UserError("select_option: the list takes one option")
    await page.call("DOM.focus", backendNodeId=node)
    await hands.press(page, "Home")
    usable = [index for index, it in enumerate(options) if not it["disabled"]]
    if chosen[0] not in usable:
        raise UserError("select_option: the option is disabled")
    for _ in range(usable.index(chosen[0])):
        await hands.press(page, "ArrowDown")


def _options(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    made = []
    for child in node.get("children", ()):
        if child["nodeName"].upper() == "OPTGROUP":
            made += _options(child)
        elif child["nodeName"].upper() == "OPTION":
            attributes = _attributes(child)
            text = " ".join("".join(it.get("nodeValue", "") for it in child.get("children", ())).split())
            made.append(
                {
                    "text": text,
                    "value": attributes.get("value", text),
                    "disabled": "disabled" in attributes,
                    "node": child["backendNodeId"],
                }
            )
    return made


def _attributes(node: Mapping[str, Any]) -> dict[str, str]:
    row = node.get("attributes", ())
    return dict(zip(row[0::2], row[1::2], strict=True))
