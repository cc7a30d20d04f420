"""What a library import brings: its names, which are real axioms, and which are unsafe. Built once per toolchain.

In exported library files nearly every theorem is stored as an axiom; an entry of the environment tells them apart. The
proofs behind them are not there, so what an imported theorem rests on is trusted.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agenthub.errors import HostFault
from agenthub.sandboxes.lean.module import KINDS
from agenthub.sandboxes.lean.olean import BadOlean, Name, Region, Table
from agenthub.sandboxes.lean.toolchain import TESTED, Toolchain

__all__ = ["AXIOM", "UNSAFE", "Imported", "load"]

AXIOM, UNSAFE = 1, 2
Imported = Mapping[Name, int]
"""Flags by name: AXIOM, UNSAFE, both or 0."""
_SCALAR = {"axiom": 0, "opaque": 0, "constructor": 0, "inductive": 1, "recursor": 1}
_loaded: dict[tuple[str, tuple[str, ...]], Imported] = {}


def load(toolchain: Toolchain, roots: Iterable[str], cache: Path) -> Imported:
    """The index of some modules and all that they import.

    Raises:
        HostFault: a library file is missing or cannot be read.
    """
    key = (toolchain.identity, tuple(sorted(set(roots) | {"Init"})))
    if key not in _loaded:
        path = cache / toolchain.identity / f"index-{'-'.join(key[1])}.json"
        _loaded[key] = _read(path) or _write(path, _build(toolchain, key[1]))
    return _loaded[key]


def _read(path: Path) -> Imported | None:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return {tuple(row[1:]): row[0] for row in rows}


def _write(path: Path, index: Imported) -> Imported:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump([[flags, *name] for name, flags in index.items()], file)
    os.replace(file.name, path)
    return index


def _build(toolchain: Toolchain, roots: tuple[str, ...]) -> Imported:
    index: dict[Name, int] = {}
    todo: list[Name] = [tuple(root.split(".")) for root in roots]
    seen = set(todo)
    while todo:
        module = todo.pop()
        stem = str(toolchain.library.joinpath(*map(str, module)))
        parts = (".olean", ".olean.server", ".olean.private") if toolchain.native else (".olean",)
        try:
            data = [Path(stem + part).read_bytes() for part in parts if part == ".olean" or os.path.exists(stem + part)]
            region = Region(data, Table(), pointer=toolchain.pointer_bytes, versions=TESTED | {toolchain.version})
            imports = _module(region, index)
        except (OSError, BadOlean) as error:
            raise HostFault(f"the library file of {'.'.join(map(str, module))} cannot be read: {error}") from error
        todo += [one for one in imports if one not in seen]
        seen.update(imports)
    return index


def _module(region: Region, index: dict[Name, int]) -> list[Name]:
    """Add one module's names. Returns what it imports."""
    _, fields = region.fields(region.root, 5)
    true_kinds = _true_kinds(region, fields[4])
    for address in region.array(fields[2]):
        tag, (value,) = region.fields(address, 1)
        kind = KINDS[tag]
        _, parts = region.fields(value)
        name = region.name(region.fields(parts[0], 3)[1][0])
        axiom = kind == "axiom" and true_kinds.get(name, 2) == 2
        unsafe = region.byte(value, 0) != 1 if kind == "def" else kind in _SCALAR and region.flag(value, _SCALAR[kind])
        index[name] = index.get(name, 0) | (AXIOM if axiom else 0) | (UNSAFE if unsafe else 0)
    return [region.name(region.fields(one, 1)[1][0]) for one in region.array(fields[0])]


def _true_kinds(region: Region, entries: int) -> dict[Name, Any]:
    """What the exported axioms of a module really are: 2 is an axiom."""
    for entry in region.array(entries):
        name, rows = region.fields(entry, 2)[1]
        if region.name(name)[-1:] == ("privateConstKindsExt",):
            pairs = (region.fields(row, 2)[1] for row in region.array(rows))
            return {region.name(of): kind >> 1 for of, kind in pairs}
    return {}
