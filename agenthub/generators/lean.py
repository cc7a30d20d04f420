"""Tasks from Lean 4 files and JSONL rows in the shape of miniF2F: a header, theorems, proofs left out.

A file has a header (imports, `open`, options), then theorems that end in `:= by sorry` or `:= sorry`; what stands
between them is the definitions of those that come after. A row has `formal_statement` (or `statement`), and may have
`header`, `name` (or `id`), `split`, `informal_stmt` and `proof`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["generate", "of_file", "of_row"]

_KEYS = ("path", "mode")
_LEFT_OUT = re.compile(r":=\s*(?:by\s+)?sorry\b")
_OPENING = re.compile(r"^(?:theorem|lemma)\s+(\S+)", re.MULTILINE)
_ID = re.compile(r"[^A-Za-z0-9._-]+")
_HEAD = re.compile(
    r"\A(?:\s*(?:import\s+\S+|open\s+(?:scoped\s+)?[^\n]+|set_option\s+\S+\s+\S+|--[^\n]*)[ \t]*\n|\s*\n)*"
)
_FINITE = re.compile(r"^\s*set_option\s+maxHeartbeats\s+0\s*(?:in\s*)?$", re.MULTILINE)


def generate(config: Mapping[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Task rows, for a suite's source.

    Args:
        config: `path` of a .lean or .jsonl file, or a folder of them; `mode` of the challenges, body where absent.
        seed: not used; the order is the file's.

    Raises:
        UserError: a key is not known, the path has no such file, or a file has no theorem that is left to prove.
    """
    del seed
    for key in config:
        if key not in _KEYS:
            raise UnknownName("setting of the Lean importer", key, _KEYS)
    path, mode = config.get("path"), config.get("mode", "body")
    if not isinstance(path, str) or mode not in ("body", "file"):
        raise UserError("the Lean importer needs `path`, and `mode` is body or file")
    rows = (row for file in _files(Path(path)) for row in _rows(file))
    for index, row in enumerate(islice(rows, count)):
        yield _task(index, row, mode)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in (".lean", ".jsonl"))
    if not path.is_file():
        raise UserError(f"the Lean importer finds no {path}")
    return [path]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        yield from of_file(text, path.name)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: is not JSON: {error}") from error
            yield of_row(row, f"{path}:{number}")


def of_row(row: Any, place: str) -> dict[str, str]:
    """A row's challenge, by the keys of `Challenge`, and its `name`, `split`, `informal` and `proof` where given.

    Raises:
        UserError: it has no statement.
    """
    if not isinstance(row, dict):
        raise UserError(f"{place}: a row is {type(row).__name__}; expected an object")
    text = row.get("formal_statement") or row.get("statement")
    if not isinstance(text, str):
        raise UserError(f"{place}: the row has no formal_statement")
    full = f"{row.get('header') or ''}\n{text if _LEFT_OUT.search(text) else text.rstrip().removesuffix('by').rstrip()}"
    if not _LEFT_OUT.search(full):
        full = f"{full.rstrip().removesuffix(':=').rstrip()} := by sorry"
    found = list(of_file(full, place))[-1]
    for key, names in {
        "name": ("name", "id"),
        "split": ("split",),
        "informal": ("informal_stmt", "informal_prefix"),
    }.items():
        value = next((row[name] for name in names if isinstance(row.get(name), str)), None)
        if value is not None:
            found[key] = value
    return found | ({"proof": row["proof"]} if isinstance(row.get("proof"), str) else {})


def of_file(text: str, place: str) -> Iterator[dict[str, str]]:
    """The challenges of a Lean file, in its order. An unlimited maxHeartbeats is dropped.

    Raises:
        UserError: no theorem is left to prove.
    """
    text = _FINITE.sub("", text)
    head = _HEAD.match(text)
    header = head[0].strip() if head else ""
    at = head.end() if head else 0
    definitions: list[str] = []
    found = False
    for left_out in _LEFT_OUT.finditer(text, at):
        piece = text[at : left_out.start()]
        opening = list(_OPENING.finditer(piece))
        if opening:
            definitions.append(piece[: opening[-1].start()].strip())
            found = True
            yield {
                "name": opening[-1][1].rstrip(":"),
                "header": header,
                "definitions": "\n\n".join(part for part in definitions if part),
                "statement": piece[opening[-1].start() :].strip(),
            }
        at = left_out.end()
    if not found:
        raise UserError(f"{place}: no theorem ends in `:= by sorry`")


def _task(index: int, row: dict[str, str], mode: str) -> dict[str, Any]:
    challenge = {key: row[key] for key in ("header", "definitions", "statement") if row.get(key)}
    shown = "\n".join(challenge.values())
    said = f"{row['informal'].strip()}\n\n" if row.get("informal") else ""
    what = "Give what comes after `:= by`." if mode == "body" else "Give the whole file."
    made: dict[str, Any] = {
        "id": f"{index:05d}-{_ID.sub('-', row['name']).strip('-.') or 'theorem'}",
        "prompt": {"user": f"{said}Prove this in Lean 4.\n```lean4\n{shown} := by\n```\n{what}"},
        "tools": [{"uses": "lean", "name": "lean.check", "tool": "check", "config": {"mode": mode, **challenge}}],
        "verifier": {"checks": [{"uses": "lean"}]},
    }
    if row.get("split"):
        made["split"] = row["split"]
    if row.get("proof"):
        made["solution"] = {"turns": [f"```lean4\n{row['proof']}\n```"]}
    return made
