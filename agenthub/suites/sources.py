"""Sources of task rows: a JSONL file through a field map, or a named generator."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from agenthub.errors import ConfigError, UserError
from agenthub.registry import registry
from agenthub.suites.fields import fill
from agenthub.suites.schema import GeneratorSource, JsonlSource, SourceIn

__all__ = ["missing", "rows"]

MAX_ROW_CHARS = 16 << 20
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def missing(source: SourceIn, folder: Path, place: str) -> str | None:
    """What this machine lacks for the source, in one line; None where it is all there.

    Raises:
        ConfigError: no generator has that name.
    """
    if isinstance(source, JsonlSource):
        variable = _VARIABLE.search(source.path)
        if variable and not os.environ.get(variable[1]):
            return f"needs {source.path}; set {variable[1]} to the folder that holds {Path(source.path).name}"
        path = _resolved(source.path, folder)
        return None if path.is_file() else f"needs {path}, which is not there"
    module = _generator_module(source, place)
    lacking = [name for name in getattr(module, "NEEDS", ()) if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(lacking)}, which is not installed" if lacking else None


def rows(source: SourceIn, folder: Path, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where the row comes from, task keys) of each row.

    Raises:
        ConfigError: the data cannot be read, a row is broken, or the generator refuses its settings.
    """
    if isinstance(source, JsonlSource):
        return _jsonl_rows(source, _resolved(source.path, folder), place)
    return _generated_rows(source, place)


def _resolved(path: str, folder: Path) -> Path:
    expanded = _VARIABLE.sub(lambda match: os.environ.get(match[1], ""), path)
    return folder / expanded


def _jsonl_rows(source: JsonlSource, path: Path, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, (line, row) in enumerate(islice(_lines(path, place), source.limit)):
        where = f"{path.name}:{line}"
        filled = fill(source.fields, row, f"{place} (row {where})")
        if source.split is not None:
            filled.setdefault("split", source.split)
        filled.setdefault("id", f"{index:05d}")
        yield where, filled


def _lines(path: Path, place: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            number = 0
            while line := stream.readline(MAX_ROW_CHARS + 1):
                number += 1
                if len(line) > MAX_ROW_CHARS:
                    raise ConfigError(f"{path}:{number}", f"a row has more than {MAX_ROW_CHARS} characters")
                if line.strip():
                    yield number, _row(line, f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is not UTF-8: {error.reason}") from error
    except (OSError, EOFError) as error:
        raise ConfigError(place, f"{path} cannot be read: {error}") from error


def _row(line: str, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(place, f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(place, f"a row is {type(row).__name__}; expected an object")
    return row


def _generator_module(source: GeneratorSource, place: str) -> Any:
    name = source.uses.partition(":")[0]
    try:
        function = registry("generator").load(name)
    except UserError as error:
        raise ConfigError(place, str(error)) from error
    return sys.modules[function.__module__]


def _generated_rows(source: GeneratorSource, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    name, colon, variant = source.uses.partition(":")
    config = {"variant": variant, "config": source.config} if colon else source.config
    count = source.count or source.size or 0
    try:
        generate = registry("generator").load(name)
        for index, row in enumerate(generate(config, source.seed, count)):
            if source.split is not None:
                row = {"split": source.split, **row}
            yield f"{source.uses} {index}", {**row, "id": f"{source.prefix}{row['id']}"}
    except ConfigError:
        raise
    except UserError as error:
        raise ConfigError(place, str(error)) from error
