"""A YAML 1.2 file as plain values, with the line of each.

Owns what may stand in a file (string keys, no tags, no duplicate keys) and how much of it; not what the keys mean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agenthub.errors import ConfigError

__all__ = ["Document", "Loc", "parse_document", "read_document"]

MAX_BYTES = 8 << 20
"""A larger file is data, and belongs into JSONL."""
MAX_VALUES = 500_000
"""Values after aliases are expanded; stops alias bombs."""

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed YAML file: plain values, and where each of them stands."""

    path: str
    data: Any
    """None, bool, int, float, str, list and dict with string keys."""
    lines: Mapping[Loc, int]
    """Line of each value by its keys and indices, from 1; a mapping's entry stands at its key."""
    root: str = "the file"
    """What the outermost mapping is called in an error: a part of a file has a name there."""
    given: Mapping[Loc, str] = field(default_factory=dict)
    """Values that an override gave, and how it read."""

    def place(self, loc: Loc) -> str:
        """`file:line` of a value, or of the nearest one around it; `--set key=value` where an override gave it."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.given:
                return self.given[loc[:end]]
            if loc[:end] in self.lines:
                return f"{self.path}:{self.lines[loc[:end]]}"
        return self.path


def read_document(path: str | os.PathLike[str]) -> Document:
    """Read and parse a file.

    Raises:
        ConfigError: it is missing, unreadable, too large, not UTF-8, empty, or not YAML as `parse_document` wants it.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(name, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(repr(name), f"is no file name: {error}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(name, f"is larger than {MAX_BYTES >> 20} MiB; put data into a JSONL file beside it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}", f"is not UTF-8 (byte {raw[error.start]:#04x})") from error
    return parse_document(text, name)


def parse_document(text: str, path: str) -> Document:
    """Parse YAML text.

    Raises:
        ConfigError: not YAML, empty, more than one document, a duplicate key, a key that is no string, a tag, aliases
            that expand without end, or nesting too deep.
    """
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else path
        raise ConfigError(place, f"is not YAML: {error.problem or error.context}") from error
    except YAMLError as error:
        raise ConfigError(path, f"is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(path, "is nested too deeply") from error
    except ValueError as error:
        raise ConfigError(path, f"is not YAML: {error}") from error
    if node is None:
        raise ConfigError(path, "is empty")
    builder = _Builder(path)
    try:
        data = builder.build(node, ())
    except RecursionError as error:
        raise ConfigError(path, "is nested too deeply") from error
    return Document(path=path, data=data, lines=builder.lines)


class _Builder:
    """Turns a node graph into plain values and notes the line of each."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: dict[Loc, int] = {}
        self._open: set[int] = set()

    def build(self, node: Node, loc: Loc) -> Any:
        self.lines.setdefault(loc, node.start_mark.line + 1)
        if len(self.lines) > MAX_VALUES:
            raise self._error(node, f"holds more than {MAX_VALUES} values once its aliases are expanded")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error(node, "an alias contains itself")
        self._open.add(id(node))
        built = self._mapping(node, loc) if isinstance(node, MappingNode) else self._sequence(node, loc)
        self._open.remove(id(node))
        return built

    def _sequence(self, node: Node, loc: Loc) -> list[Any]:
        if not isinstance(node, SequenceNode) or _tag(node) != "seq":
            raise self._error(node, f"tag {node.tag!s} is not used here")
        return [self.build(item, (*loc, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        if _tag(node) != "map":
            raise self._error(node, f"tag {node.tag!s} is not used here")
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node) if isinstance(key_node, ScalarNode) else key_node
            if not isinstance(key, str):
                shown = key_node.value if isinstance(key_node, ScalarNode) else "a list or mapping"
                raise self._error(key_node, f"key {shown} is not a string; quote it")
            if key in built:
                raise self._error(key_node, f"key {key!r} stands here twice, first in line {self.lines[(*loc, key)]}")
            self.lines[(*loc, key)] = key_node.start_mark.line + 1
            built[key] = self.build(value_node, (*loc, key))
        return built

    def _scalar(self, node: ScalarNode) -> Any:
        kind, text = _tag(node), str(node.value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            # Escapes of JSON write a character beyond 16 bits as two halves.
            try:
                text = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self._error(node, "holds half of a surrogate pair, which is no character") from None
        if kind in ("str", "timestamp", "merge", "value"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on", "y")
        try:
            if kind == "int":
                return _integer(text)
            if kind == "float":
                return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()).replace("_", ""))
        except ValueError as error:
            raise self._error(node, f"{text[:40]!r} is no number: {error}") from error
        raise self._error(node, f"tag {node.tag!s} is not used here")

    def _error(self, node: Node, message: str) -> ConfigError:
        return ConfigError(f"{self.path}:{node.start_mark.line + 1}", message)


def _tag(node: Node) -> str:
    return str(node.tag or "").removeprefix("tag:yaml.org,2002:")


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    return sign * int(digits)
