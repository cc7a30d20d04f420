"""The field map of a JSONL source: task fields as templates over the fields of a row.

"{question}"                         a field; alone in its string it keeps its JSON type
"{answer|after:####|remove:,|strip}" a field through filters, from left to right
"{{" and "}}"                        braces
{each: answer, find: '<<(?P<sum>[^=>]+)=', give: "print({sum})"}
                                     in a list: one item for each match of the pattern in a field; its named groups
                                     are fields
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agenthub.errors import ConfigError, nearest

__all__ = ["FILTERS", "fill"]

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_EACH = {"each", "find", "give"}

FILTERS: Mapping[str, Callable[[str, str], str]] = {
    "after": lambda text, mark: text.rpartition(mark)[2],
    "before": lambda text, mark: text.partition(mark)[0],
    "lower": lambda text, mark: text.lower(),
    "remove": lambda text, mark: text.replace(mark, ""),
    "strip": lambda text, mark: text.strip(),
}
_WITH_MARK = {"after", "before", "remove"}


def fill(template: Any, row: Mapping[str, Any], place: str) -> Any:
    """`template` with every string filled from `row`.

    Raises:
        ConfigError: a field or filter is not known, braces do not match, a filter meets a value that is no text.
    """
    if isinstance(template, str):
        return _text(template, row, place)
    if isinstance(template, dict):
        return {key: fill(value, row, place) for key, value in template.items()}
    if isinstance(template, list):
        filled: list[Any] = []
        for item in template:
            if isinstance(item, dict) and set(item) == _EACH:
                filled += _each(item, row, place)
            else:
                filled.append(fill(item, row, place))
        return filled
    return template


def _each(item: Mapping[str, Any], row: Mapping[str, Any], place: str) -> list[Any]:
    text = _field(str(item["each"]), row, place)
    if not isinstance(text, str):
        raise ConfigError(place, f"each: field {item['each']!r} is no text")
    try:
        matches = list(re.finditer(str(item["find"]), text))
    except re.error as error:
        raise ConfigError(place, f"find: {item['find']!r} is no regular expression: {error}") from error
    return [fill(item["give"], {**row, **match.groupdict(default="")}, place) for match in matches]


def _text(template: str, row: Mapping[str, Any], place: str) -> Any:
    alone = _TOKEN.fullmatch(template)
    if alone is not None and alone[1] is not None:
        return _field(alone[1], row, place)

    def one(match: re.Match[str]) -> str:
        if match[1] is not None:
            value = _field(match[1], row, place)
            return value if isinstance(value, str) else str(value)
        if len(match[0]) == 1:
            raise ConfigError(place, f"a single {match[0]!r} in {template[:60]!r}; write it twice for a brace")
        return match[0][0]

    return _TOKEN.sub(one, template)


def _field(text: str, row: Mapping[str, Any], place: str) -> Any:
    name, *filters = text.split("|")
    if name not in row:
        raise ConfigError(place, f"the row has no field {name!r}{nearest(name, row)}")
    value = row[name]
    for step in filters:
        filter_name, colon, mark = step.partition(":")
        if filter_name not in FILTERS:
            raise ConfigError(place, f"no filter named {filter_name!r}{nearest(filter_name, FILTERS)}")
        if (filter_name in _WITH_MARK) != bool(colon and mark):
            written = f"{filter_name}:TEXT" if filter_name in _WITH_MARK else filter_name
            raise ConfigError(place, f"filter {step!r} is written {written!r}")
        if not isinstance(value, str):
            raise ConfigError(place, f"filter {filter_name!r}: field {name!r} is no text")
        value = FILTERS[filter_name](value, mark)
    return value
