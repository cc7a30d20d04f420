"""Answers as values: which are accepted, how a number is read, when two texts are the same."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import Any

from agenthub.errors import TaskBroken
from agenthub.suites.task import Task

__all__ = ["accepted", "number", "same_text"]

MAX_CHARS = 200
"""A longer text is no number."""
MAX_EXPONENT = 400
_NUMBER = re.compile(
    r"""[-+]?(?:
        (?P<grouped>[0-9]{1,3}(?:,[0-9]{3})+)(?P<part>\.[0-9]+)?   # 1,234,567.8
      | (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<power>[-+]?[0-9]{1,4}))?   # 12, 1.5, .5, 1e-3
    )""",
    re.VERBOSE,
)
_FRACTION = re.compile(r"([-+]?[0-9]+)\s*/\s*([0-9]+)")


def accepted(task: Task) -> tuple[Any, ...]:
    """The task's accepted answers, one at least.

    Raises:
        TaskBroken: the task has no target.
    """
    if task.target is None or task.target == ():
        raise TaskBroken("the task has no target")
    return task.target if isinstance(task.target, tuple) else (task.target,)


def number(value: Any) -> Fraction | None:
    """The number that `value` is, exactly; None where it is none.

    Text must be one number and nothing else but white space, a leading `$` and a trailing `%` or full stop aside (`%`
    does not divide). Thousands may be grouped by commas, properly. `a/b` is read as a fraction. No infinities, no nan,
    no words, no digits of other scripts.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Fraction(value)
    if isinstance(value, float):
        return Fraction(repr(value)) if value - value == 0 else None
    if not isinstance(value, str) or len(value) > MAX_CHARS:
        return None
    text = re.sub(r"^([-+]?)\$", r"\1", value.strip()).removesuffix("%").strip()
    if text.endswith(".") and len(text) > 1:
        text = text[:-1]
    match = _FRACTION.fullmatch(text)
    if match is not None:
        return Fraction(int(match[1]), int(match[2])) if int(match[2]) else None
    found = _NUMBER.fullmatch(text)
    if found is None or abs(int(found["power"] or 0)) > MAX_EXPONENT:
        return None
    return Fraction(text.replace(",", ""))


def same_text(given: str, expected: str, *, case: bool = True) -> bool:
    """Equal after Unicode normalisation (NFC), with white space at the ends dropped and runs of it as one space."""
    left, right = (" ".join(unicodedata.normalize("NFC", text).split()) for text in (given, expected))
    return left == right if case else left.casefold() == right.casefold()
