"""What a policy can do: one list of verbs, written as JSON or in the syntax of calls that BrowserGym has.

Reading is all there is here: what comes out is checked against the list, and nothing of it is ever evaluated.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agenthub.errors import UserError, nearest
from agenthub.records import frozen

__all__ = ["VERBS", "Action", "Parameter", "from_calls", "from_json", "schema", "written"]

MOST_CHARS = 20_000
MOST_ACTIONS = 32
_ALIASES = {"bid": "id", "key_comb": "key", "from_bid": "from_id", "to_bid": "to_id", "close": "tab_close"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument of a verb."""

    name: str
    kind: str
    """id, text, number, count, texts (one or several), keys (a list), button."""
    default: Any = None
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do."""

    verb: str
    arguments: Mapping[str, Any]
    """Every parameter of the verb, with its default where none was given."""


def _verb(does: str, *parameters: str) -> tuple[str, tuple[Parameter, ...]]:
    made = []
    for text in parameters:
        name, _, kind = text.partition(":")
        kind, given, default = kind.partition("=")
        value = ast.literal_eval(default) if given else None
        made.append(Parameter(name=name, kind=kind, default=value, required=not given))
    return does, tuple(made)


_POINT, _BUTTON, _HELD = ("x:number", "y:number"), "button:button='left'", "modifiers:keys=()"
VERBS: Mapping[str, tuple[str, tuple[Parameter, ...]]] = {
    "click": _verb("Clicks an element.", "id:id", _BUTTON, _HELD),
    "dblclick": _verb("Clicks an element twice.", "id:id", _BUTTON, _HELD),
    "hover": _verb("Moves the mouse over an element.", "id:id"),
    "focus": _verb("Gives an element the focus.", "id:id"),
    "fill": _verb("Replaces the text of a field.", "id:id", "value:text"),
    "clear": _verb("Empties a field.", "id:id"),
    "press": _verb("Presses a key, such as Enter or Control+a, with an element in focus.", "id:id", "key:text"),
    "select_option": _verb("Selects options of a list by their text or value.", "id:id", "options:texts"),
    "drag_and_drop": _verb("Drags one element onto another.", "from_id:id", "to_id:id"),
    "scroll": _verb("Turns the mouse's wheel, by pixels, over the middle or a point.", "delta_x:number",
                    "delta_y:number", "x:number=-1", "y:number=-1"),
    "mouse_move": _verb("Moves the mouse.", *_POINT),
    "mouse_click": _verb("Clicks at a point.", *_POINT, _BUTTON),
    "mouse_dblclick": _verb("Clicks twice at a point.", *_POINT, _BUTTON),
    "mouse_down": _verb("Presses a button of the mouse at a point.", *_POINT, _BUTTON),
    "mouse_up": _verb("Lets a button of the mouse go at a point.", *_POINT, _BUTTON),
    "mouse_drag_and_drop": _verb("Drags from one point to another.", "from_x:number", "from_y:number", "to_x:number",
                                 "to_y:number"),
    "keyboard_press": _verb("Presses a key or a combination.", "key:text"),
    "keyboard_down": _verb("Presses a key and holds it.", "key:text"),
    "keyboard_up": _verb("Lets a key go.", "key:text"),
    "keyboard_type": _verb("Types a text key by key.", "text:text"),
    "keyboard_insert_text": _verb("Inserts a text at once.", "text:text"),
    "goto": _verb("Opens an address.", "url:text"),
    "go_back": _verb("Goes back by one page."),
    "go_forward": _verb("Goes forward by one page."),
    "new_tab": _verb("Opens an empty tab in front."),
    "tab_focus": _verb("Puts a tab in front, by its index.", "index:count"),
    "tab_close": _verb("Closes the tab in front."),
    "noop": _verb("Waits for some milliseconds of the page's time.", "wait_ms:count=0"),
    "wait": _verb("Waits for some milliseconds of the page's time.", "wait_ms:count=1000"),
    "send_msg_to_user": _verb("Gives the user a message.",
                              "text:text"),
    "report_infeasible": _verb("Says that the task cannot be done, and ends it.", "reason:text=''"),
    "done": _verb("Says that the task is done, and ends it."),
}  # fmt: skip
_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "id": {"type": ["string", "integer"]},
    "text": {"type": "string"},
    "number": {"type": "number"},
    "count": {"type": "integer", "minimum": 0},
    "texts": {"type": ["string", "array"], "items": {"type": "string"}},
    "keys": {"type": "array", "items": {"type": "string"}},
    "button": {"type": "string", "enum": ["left", "middle", "right"]},
}


def schema() -> dict[str, Any]:
    """JSON Schema of an action as JSON."""
    properties: dict[str, Any] = {"type": {"type": "string", "enum": list(VERBS)}}
    for _, parameters in VERBS.values():
        properties |= {it.name: _SCHEMAS[it.kind] for it in parameters}
    return {"type": "object", "properties": properties, "required": ["type"], "additionalProperties": False}


def written() -> str:
    """Every verb as a call, a line each."""
    lines = []
    for name, (does, parameters) in VERBS.items():
        shown = ", ".join(it.name if it.required else f"{it.name}={it.default!r}" for it in parameters)
        lines.append(f"{name}({shown}): {does}")
    return "\n".join(lines)


def from_json(given: Mapping[str, Any]) -> Action:
    """An action such as `{"type": "click", "id": "12"}`.

    Raises:
        UserError: a verb or an argument is not known, missing, or of another kind.
    """
    arguments = {_ALIASES.get(name, name): value for name, value in given.items() if name != "type"}
    return _action(given.get("type"), (), arguments)


def from_calls(code: str) -> tuple[Action, ...]:
    """The actions of a text such as `click('12')`, one call a line.

    Raises:
        UserError: as `from_json`, or the text is no list of plain calls.
    """
    if len(code) > MOST_CHARS:
        raise UserError(f"an action has at most {MOST_CHARS} characters, this one {len(code)}")
    try:
        parsed = ast.parse(code.strip(), mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"the action cannot be read: {getattr(error, 'msg', error)}; expected click('12')") from error
    if not parsed.body:
        raise UserError("there is no action; expected a call such as click('12')")
    if len(parsed.body) > MOST_ACTIONS:
        raise UserError(f"at most {MOST_ACTIONS} actions at once, these are {len(parsed.body)}")
    return tuple(_call(statement) for statement in parsed.body)


def _call(statement: ast.stmt) -> Action:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise UserError(f"line {statement.lineno} is no plain call; expected click('12')")
    try:
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {_ALIASES.get(word.arg or "", word.arg or ""): ast.literal_eval(word.value) for word in call.keywords}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f"line {statement.lineno}: arguments are plain values, not expressions") from error
    return _action(call.func.id, positional, named)


def _action(verb: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> Action:
    verb = _ALIASES.get(verb, verb) if isinstance(verb, str) else verb
    if not isinstance(verb, str) or verb not in VERBS:
        raise UserError(f"no action is named {verb!r:.80}{nearest(str(verb)[:80], VERBS)}")
    parameters = VERBS[verb][1]
    if len(positional) > len(parameters):
        raise UserError(f"{verb} takes {len(parameters)} arguments, not {len(positional)}")
    given = {it.name: value for it, value in zip(parameters, positional, strict=False)}
    for name, value in named.items():
        if name not in {it.name for it in parameters}:
            raise UserError(f"{verb} has no argument {name!r:.80}{nearest(name[:80], [it.name for it in parameters])}")
        if name in given:
            raise UserError(f"{verb}: argument {name} is given twice")
        given[name] = value
    checked: dict[str, Any] = {}
    for it in parameters:
        if it.name not in given and it.required:
            raise UserError(f"{verb}: argument {it.name} is missing")
        checked[it.name] = _value(verb, it, given[it.name]) if it.name in given else it.default
    return Action(verb=verb, arguments=frozen(checked))


def _value(verb: str, parameter: Parameter, value: Any) -> Any:
    """The argument in its own type. Raises UserError."""
    kind = parameter.kind
    if kind == "id" and type(value) in (str, int):
        return str(value)
    if kind == "text" and isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if kind == "number" and type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e6:
        return float(value)
    if kind == "count" and type(value) in (int, float) and 0 <= value <= 600_000:
        return int(value)
    if kind == "button" and value in ("left", "middle", "right"):
        return value
    if kind in ("texts", "keys"):
        rows = [value] if isinstance(value, str) and kind == "texts" else value
        if isinstance(rows, (list, tuple)) and len(rows) <= 100 and all(isinstance(row, str) for row in rows):
            return tuple(rows)
    raise UserError(f"{verb}: argument {parameter.name} is {value!r:.80}; expected {_told(kind)}")


def _told(kind: str) -> str:
    return {
        "id": "the id of an element, such as '12'",
        "text": "a text",
        "number": "a number",
        "count": "a whole number of 0 to 600000",
        "texts": "a text or a list of texts",
        "keys": "a list of Alt, Control, Meta, Shift",
        "button": "left, middle or right",
    }[kind]
