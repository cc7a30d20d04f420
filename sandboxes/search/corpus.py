"""The readers of an index: many at a time, in any process, while one writer may be at work.

A reader keeps what it has open; a later commit is taken over when it can be opened, and an index that has become
unreadable leaves the old one serving.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tantivy

from agenthub.errors import UserError
from agenthub.sandboxes.search.builder import FACTS, FORMAT, SEGMENTS, analyzer, file_digests, segment_files
from agenthub.sandboxes.search.documents import Document
from agenthub.sandboxes.search.ranking import Ranker

__all__ = ["MAX_K", "MAX_QUERY_CHARS", "Corpus", "Hit", "check"]

MAX_K = 100
MAX_QUERY_CHARS = 1000
_CACHED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One passage found."""

    id: str
    """The document's."""
    title: str
    text: str
    """The passage alone."""
    url: str
    score: float
    """BM25; rounded, so that equal passages are equal."""
    start: int
    """Offsets of the passage in the document's text."""
    end: int
    passage: int
    """Number of the passage in the document, from 0."""


class Corpus:
    """An index that is open for reading; may be used from several threads."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            UserError: there is no index, or it is broken; says what.
        """
        self.folder = folder
        self._facts, self._index = _opened(folder)
        self._lock = threading.Lock()
        self._ranker = Ranker(self._index.schema, self._index.searcher(), analyzer())
        self._stamp = _stamp(folder)
        self._cache: OrderedDict[tuple[str, int], tuple[Hit, ...]] = OrderedDict()
        self.trouble = ""
        """Why a later commit could not be opened; empty while there is none."""

    @property
    def name(self) -> str:
        """As the index was named."""
        return str(self._facts.get("name") or self.folder.name)

    @property
    def facts(self) -> dict[str, Any]:
        """Documents, passages, and what the index says of itself."""
        return {
            **{key: value for key, value in self._facts.items() if key != "files"},
            "passages": self._ranker.searcher.num_docs,
            "trouble": self.trouble,
        }

    def search(self, query: str, k: int) -> tuple[Hit, ...]:
        """The `k` best passages; equal scores in the order of their ids.

        Raises:
            UserError: the query is empty or too long, or k is not 1 to `MAX_K`.
        """
        if not 1 <= k <= MAX_K:
            raise UserError(f"k is {k}; expected 1 to {MAX_K}")
        if len(query) > MAX_QUERY_CHARS:
            raise UserError(f"the query has {len(query)} characters; at most {MAX_QUERY_CHARS}")
        if not query.strip():
            raise UserError("the query is empty")
        self._follow()
        key = (" ".join(query.split()), k)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            ranker = self._ranker
        hits = self._found(ranker, query, k)
        with self._lock:
            if ranker is self._ranker:
                self._cache[key] = hits
                while len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
        return hits

    def page(self, name: str) -> Document:
        """A document by its id or address.

        Raises:
            UserError: there is none.
        """
        self._follow()
        searcher = self._ranker.searcher
        for field in ("page", "address"):
            row = _row_of(searcher, self._index.schema, field, name)
            if row is not None:
                return _document(row)
        raise UserError(f"no document {name[:200]!r} in the corpus {self.name!r}")

    def _found(self, ranker: Ranker, query: str, k: int) -> tuple[Hit, ...]:
        searcher = ranker.searcher
        best = [(score, searcher.doc(place).to_dict()) for score, place in ranker.best(query, k)]
        best.sort(key=lambda row: (-row[0], row[1]["doc"][0], row[1]["passage"][0]))
        return tuple(self._hit(searcher, score, row) for score, row in best[:k])

    def _hit(self, searcher: tantivy.Searcher, score: float, row: dict[str, list[Any]]) -> Hit:
        whole = row if "text" in row else _row_of(searcher, self._index.schema, "page", row["doc"][0])
        assert whole is not None  # the rows of a document are written and removed together
        start, end = row["start"][0], row["end"][0]
        return Hit(
            id=row["doc"][0],
            title=_text(whole, "title"),
            text=_text(whole, "text")[start:end],
            url=_text(whole, "url"),
            score=score,
            start=start,
            end=end,
            passage=row["passage"][0],
        )

    def _follow(self) -> None:
        """Take over a later commit; where it cannot be opened, what is open goes on serving."""
        stamp = _stamp(self.folder)
        if stamp == self._stamp:
            return
        with self._lock:
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                facts, index = _opened(self.folder)
                ranker = Ranker(index.schema, index.searcher(), analyzer())
            except UserError as error:
                self.trouble = str(error)
                return
            self._facts, self._index, self._ranker, self.trouble = facts, index, ranker, ""
            self._cache.clear()


def check(folder: Path) -> list[str]:
    """What is wrong with an index, file by file, all of its bytes read; empty where it is sound."""
    try:
        facts, _ = _opened(folder)
        read = file_digests(segment_files(folder), {})
    except (UserError, OSError, ValueError, KeyError) as error:
        return [str(error)]
    kept = facts["files"]
    return [f"{name}: its content has changed" for name, row in read.items() if name in kept and kept[name] != row]


def _opened(folder: Path) -> tuple[dict[str, Any], tantivy.Index]:
    if not folder.is_dir():
        raise UserError(f"there is no index at {folder}; make one with `agenthub search index`")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"it has format {facts['format']}, this version reads {FORMAT}")
        sizes = {name: row[0] for name, row in facts["files"].items()}
        for path in segment_files(folder):
            size = path.stat().st_size
            if sizes.get(path.name, size) != size:
                raise ValueError(f"{path.name} has {size} bytes; {sizes[path.name]} were written")
        index = tantivy.Index.open(str(folder / SEGMENTS))
        index.register_tokenizer("hub", analyzer())
        index.config_reader("Manual")
        index.reload()
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no finished index: {Path(error.filename or '').name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"the index at {folder} is broken: {error}; remove the folder and index the corpus again"
        ) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # tantivy's own word for a file that contradicts itself
            raise
        raise UserError(
            f"the index at {folder} is broken: {error}; remove the folder and index the corpus again"
        ) from None
    return facts, index


def _stamp(folder: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(folder / FACTS)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _row_of(searcher: tantivy.Searcher, schema: tantivy.Schema, field: str, name: str) -> dict[str, list[Any]] | None:
    found = searcher.search(tantivy.Query.term_query(schema, field, name), 1, count=False).hits
    row: dict[str, list[Any]] | None = searcher.doc(found[0][1]).to_dict() if found else None
    return row


def _text(row: dict[str, list[Any]], name: str) -> str:
    values = row.get(name)
    return bytes(values[0]).decode() if values else ""


def _document(row: dict[str, list[Any]]) -> Document:
    links = tuple((words, target) for words, target in json.loads(_text(row, "links") or "[]"))
    return Document(
        id=row["doc"][0], title=_text(row, "title"), text=_text(row, "text"), url=_text(row, "url"), links=links
    )
