"""What a policy can do on a desktop: verbs as JSON, checked, and the events of keyboard and pointer that each one is.

The verbs are pyautogui's and those of OSWorld's `computer_13`; its names in capitals are taken as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agenthub.errors import UserError, nearest
from agenthub.sandboxes.desktop.x11 import keysym

__all__ = ["BUTTONS", "VERBS", "Events", "checked", "events_of", "schema", "waits", "written"]

Events = list[dict[str, Any]]
BUTTONS = {"left": 1, "middle": 2, "right": 3}
_UP, _DOWN, _LEFT, _RIGHT = 4, 5, 6, 7
_MOST_CHARS, _MOST_KEYS, _MOST_NOTCHES, _MOST_WAIT_S = 5000, 8, 50, 10.0
_BETWEEN_CLICKS_S = 0.02
VERBS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "click": ("Clicks at a place.", ("x", "y"), ("button", "clicks")),
    "double_click": ("Clicks twice at a place.", ("x", "y"), ("button",)),
    "right_click": ("Clicks with the right button.", ("x", "y"), ()),
    "move": ("Moves the pointer.", ("x", "y"), ()),
    "mouse_down": ("Presses a button where the pointer is.", (), ("button",)),
    "mouse_up": ("Lets a button go.", (), ("button",)),
    "drag": ("Drags from one place to another.", ("x", "y", "x2", "y2"), ("button",)),
    "scroll": ("Scrolls at a place: notches down and right, negative for up and left.", ("x", "y"), ("dx", "dy")),
    "type": ("Types a text.", ("text",), ()),
    "press": ("Presses and releases a key.", ("key",), ("presses",)),
    "key_down": ("Holds a key down.", ("key",), ()),
    "key_up": ("Lets a key go.", ("key",), ()),
    "hotkey": ("Presses keys together, such as ctrl and s.", ("keys",), ()),
    "wait": ("Waits.", (), ("seconds",)),
    "wait_for": ("Waits for a window with such a title (a regular expression).", ("title",), ("seconds",)),
    "screenshot": ("Only looks.", (), ()),
    "done": ("Ends the episode: the task is done.", (), ()),
    "fail": ("Ends the episode: the task cannot be done.", (), ("reason",)),
}
_OSWORLD = {
    "MOVE_TO": "move",
    "DRAG_TO": "drag",
    "TYPING": "type",
    **{name.upper(): name for name in VERBS},
}
_TYPES: Mapping[str, dict[str, Any]] = {
    "button": {"type": "string", "enum": list(BUTTONS)},
    "clicks": {"type": "integer", "minimum": 1, "maximum": 3},
    "presses": {"type": "integer", "minimum": 1, "maximum": 100},
    "keys": {"type": "array", "items": {"type": "string"}},
    **{name: {"type": "string"} for name in ("text", "key", "title", "reason")},
    **{name: {"type": "integer"} for name in ("x", "y", "x2", "y2", "dx", "dy")},
    "seconds": {"type": "number"},
}


def schema() -> dict[str, Any]:
    """JSON Schema of one action."""
    properties = {"action": {"type": "string", "enum": list(VERBS)}, **_TYPES}
    return {"type": "object", "properties": properties, "required": ["action"], "additionalProperties": False}


def written() -> str:
    """The verbs, a line each."""
    lines = []
    for name, (does, needed, more) in VERBS.items():
        lines.append(f"{name}({', '.join((*needed, *(f'[{it}]' for it in more)))}): {does}")
    return "\n".join(lines)


def checked(given: Mapping[str, Any], width: int, height: int) -> tuple[str, dict[str, Any]]:
    """An action's verb and arguments. Raises UserError where they do not fit."""
    name = given.get("action", given.get("action_type"))
    verb = _OSWORLD.get(str(name), str(name))
    if verb not in VERBS:
        raise UserError(f"no action is named {str(name)[:80]!r}{nearest(verb, VERBS)}")
    inner = given.get("parameters")
    found = dict(inner) if isinstance(inner, Mapping) else {}
    found |= {key: it for key, it in given.items() if key not in ("action", "action_type", "parameters")}
    found = {key: it for key, it in found.items() if it is not None}
    _, needed, more = VERBS[verb]
    for key, value in found.items():
        if key not in (*needed, *more):
            raise UserError(f"{verb} takes no {key!r}{nearest(key, (*needed, *more))}")
        found[key] = _value(verb, key, value)
    for key in needed:
        if key not in found:
            raise UserError(f"{verb} needs {key}")
    for key, most in (("x", width), ("x2", width), ("y", height), ("y2", height)):
        if key in found and not 0 <= found[key] < most:
            raise UserError(f"{verb}: {key} is {found[key]}; the screen has {width} x {height} pixels")
    return verb, found


def _value(verb: str, key: str, value: Any) -> Any:
    kind = _TYPES[key]["type"]
    if kind == "integer" and isinstance(value, float) and math.isfinite(value):
        value = round(value)
    fits: Any = {"integer": int, "string": str, "array": list, "number": (int, float)}[kind]
    if isinstance(value, bool) or not isinstance(value, fits):
        raise UserError(f"{verb}: {key} is {value!r:.100}; expected a {kind}")
    if key == "button" and value not in BUTTONS:
        raise UserError(f"{verb}: no button is named {value!r:.40}{nearest(value, BUTTONS)}")
    if kind == "string" and len(value) > _MOST_CHARS:
        raise UserError(f"{verb}: {key} has {len(value)} characters; at most {_MOST_CHARS}")
    if key in ("clicks", "presses") and not 1 <= value <= _TYPES[key]["maximum"]:
        raise UserError(f"{verb}: {key} is {value}; expected 1 to {_TYPES[key]['maximum']}")
    if key in ("dx", "dy") and abs(value) > _MOST_NOTCHES:
        raise UserError(f"{verb}: {key} is {value}; at most {_MOST_NOTCHES} notches")
    if key == "seconds" and not 0 <= value <= _MOST_WAIT_S:
        raise UserError(f"{verb}: seconds is {value}; expected 0 to {_MOST_WAIT_S:g}")
    if key in ("key", "keys"):
        _known(verb, value)
    return value


def _known(verb: str, value: Any) -> None:
    keys = value if isinstance(value, list) else [value]
    if not 1 <= len(keys) <= _MOST_KEYS:
        raise UserError(f"{verb}: {len(keys)} keys; expected 1 to {_MOST_KEYS}")
    for key in keys:
        try:
            keysym(key) if isinstance(key, str) and key else keysym("")
        except (ValueError, TypeError):
            raise UserError(f"{verb}: no key is named {key!r:.40}") from None


def waits(verb: str, given: Mapping[str, Any]) -> float:
    """Seconds that an action waits by itself."""
    return float(given.get("seconds", 1.0)) if verb in ("wait", "wait_for") else 0.0


def events_of(verb: str, given: Mapping[str, Any]) -> Events:
    """The events of a checked action that is made of any."""
    return _MAKERS[verb](given) if verb in _MAKERS else []


def _move(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"do": "move", "x": given["x"], "y": given["y"]}


def _button(button: int, *, down: bool) -> dict[str, Any]:
    return {"do": "button", "button": button, "down": down}


def _clicked(button: int, times: int) -> Events:
    made: Events = []
    for _ in range(times):
        pause = {"do": "pause", "seconds": _BETWEEN_CLICKS_S}
        made += [_button(button, down=True), _button(button, down=False), pause]
    return made


def _click(given: Mapping[str, Any]) -> Events:
    return [_move(given), *_clicked(BUTTONS[given.get("button", "left")], given.get("clicks", 1))]


def _drag(given: Mapping[str, Any]) -> Events:
    button = BUTTONS[given.get("button", "left")]
    there = {"do": "glide", "x": given["x2"], "y": given["y2"]}
    return [_move(given), _button(button, down=True), there, _button(button, down=False)]


def _scroll(given: Mapping[str, Any]) -> Events:
    made: Events = [_move(given)]
    for key, less, more in (("dy", _UP, _DOWN), ("dx", _LEFT, _RIGHT)):
        notches = given.get(key, 0)
        made += _clicked(more if notches > 0 else less, abs(notches))
    return made


def _key(key: str, *, down: bool) -> dict[str, Any]:
    return {"do": "key", "key": key, "down": down}


def _hotkey(keys: Sequence[str]) -> Events:
    return [*(_key(key, down=True) for key in keys), *(_key(key, down=False) for key in reversed(keys))]


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Events]] = {
    "click": _click,
    "double_click": lambda given: _click({**given, "clicks": 2}),
    "right_click": lambda given: _click({**given, "button": "right"}),
    "move": lambda given: [_move(given)],
    "mouse_down": lambda given: [_button(BUTTONS[given.get("button", "left")], down=True)],
    "mouse_up": lambda given: [_button(BUTTONS[given.get("button", "left")], down=False)],
    "drag": _drag,
    "scroll": _scroll,
    "type": lambda given: [{"do": "type", "text": given["text"]}],
    "press": lambda given: _hotkey([given["key"]]) * given.get("presses", 1),
    "key_down": lambda given: [_key(given["key"], down=True)],
    "key_up": lambda given: [_key(given["key"], down=False)],
    "hotkey": lambda given: _hotkey(given["keys"]),
}
