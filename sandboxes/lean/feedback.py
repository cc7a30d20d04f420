"""What the compiler said, for the policy. A submission can write anything there, so it is shown and never believed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agenthub.sandboxes.lean.box import Ran

__all__ = ["first_error", "goals", "message_of", "messages", "messages_of", "shown"]

_MOST_MESSAGES = 50
_MOST_CHARS = 4000


def messages(ran: Ran, *, above: int = 0) -> list[dict[str, Any]]:
    """The messages of a run, at the places of the text it was given; `above` as `messages_of` says."""
    found = messages_of(ran.out, above=ran.above + above)
    if ran.last is not None:
        line, col = ran.last[0] - above, ran.last[1]
        for one in found:
            if one["line"] > line:
                one["line"], one["col"] = line, col
            if one["end_line"] > line:
                one["end_line"], one["end_col"] = line, col
    return found


def messages_of(out: str, *, above: int = 0) -> list[dict[str, Any]]:
    """The messages in what the compiler wrote, errors first and then by place.

    Args:
        above: lines that were put before the policy's text; their number is taken off.
    """
    found: list[dict[str, Any]] = []
    for line in out.splitlines():
        if not line.startswith("{") or len(found) >= _MOST_MESSAGES:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and row.get("severity") in ("error", "warning", "information"):
            found.append(_message(row, above))
    return sorted(found, key=lambda one: (one["severity"] != "error", one["severity"], one["line"], one["col"]))


def _message(row: dict[str, Any], above: int) -> dict[str, Any]:
    start, end = _place(row.get("pos")), _place(row.get("endPos"))
    text = row.get("data")
    return {
        "severity": row["severity"],
        "line": max(1, start[0] - above),
        "col": start[1],
        "end_line": max(1, end[0] - above),
        "end_col": end[1],
        "message": (text if isinstance(text, str) else "")[:_MOST_CHARS],
    }


def _place(given: Any) -> tuple[int, int]:
    if not isinstance(given, dict):
        return 1, 0
    line, column = given.get("line"), given.get("column")
    return (line if type(line) is int else 1), (column if type(column) is int else 0)


def message_of(refused: str) -> dict[str, Any]:
    """What the gate says, as a message."""
    return {"severity": "error", "line": 1, "col": 0, "end_line": 1, "end_col": 0, "message": f"refused: {refused}"}


def first_error(ran: Ran) -> str:
    """The first error of a run, on one line; empty where there is none."""
    first = next((one for one in messages(ran) if one["severity"] == "error"), None)
    return f"{first['line']}:{first['col']}: {' '.join(first['message'].split())[:300]}" if first else ""


def goals(messages: Sequence[dict[str, Any]]) -> str:
    """The goals at the first error that shows some."""
    for one in messages:
        if one["severity"] == "error" and "⊢" in one["message"]:
            head, _, rest = one["message"].partition("\n")
            return str(rest.strip() or head)
    return ""


def shown(messages: Sequence[dict[str, Any]], *, most_chars: int) -> str:
    """The messages as a policy reads them."""
    rows = [f"{one['line']}:{one['col']}: {one['severity']}: {one['message'].rstrip()}" for one in messages]
    text = "\n".join(rows)
    return text if len(text) <= most_chars else text[:most_chars] + "\n... cut"
