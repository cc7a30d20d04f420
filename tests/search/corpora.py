"""Small corpora for the tests of search."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agenthub.records import Call, Observation
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.search.builder import Built, build
from agenthub.sandboxes.search.documents import read_corpus

__all__ = ["ask", "jsonl", "made", "rows"]


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A corpus of rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(count: int, word: str = "lamp") -> list[dict[str, str]]:
    """`count` documents; each has a word of its own, `word`, and its number in figures."""
    return [
        {"id": f"d{n:04d}", "title": f"Title {n}", "text": f"The {word} number w{n}x is here."} for n in range(count)
    ]


def made(corpus: Path, index: Path, **options: Any) -> Built:
    """Index a corpus."""
    return build(read_corpus(corpus), index, name="small", **options)


async def ask(sandbox: Sandbox, tool: str, timeout_s: float = 30.0, /, **arguments: Any) -> Observation:
    """One call."""
    return await sandbox.call(Call(id="1.0", tool=tool, arguments=arguments), timeout_s=timeout_s)
