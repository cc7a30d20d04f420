"""The one writer of an index: adds what is new of a corpus, replaces what has changed, and can be begun again.

An index is a folder with tantivy's files in `segments/`, the ledger, and `corpus.json`, which says what it holds and
is written last. A commit is atomic: readers see the index before it or after it, whatever becomes of the writer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tantivy

from agenthub.errors import UserError
from agenthub.sandboxes.search.documents import Document, Skipped
from agenthub.sandboxes.search.ledger import Ledger, digest
from agenthub.sandboxes.search.passages import spans

__all__ = [
    "FACTS",
    "FORMAT",
    "SEGMENTS",
    "Built",
    "analyzer",
    "build",
    "file_digests",
    "order_of",
    "schema",
    "segment_files",
]

FACTS, SEGMENTS = "corpus.json", "segments"
FORMAT = 2
COMMIT_DOCUMENTS, COMMIT_CHARS = 200_000, 400_000_000
"""A commit at least so often; what a run that was ended has to do again is no more."""
HEAP_BYTES = 256 << 20
_SPARE_BYTES = 64 << 20
"""Free space without which a run does not begin."""


@dataclass(slots=True)
class Built:
    """What a run did."""

    added: int = 0
    """Documents that are new or have changed."""
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    """Passages written by this run."""
    skipped: list[Skipped] = field(default_factory=list)
    """The first hundred documents that cannot be used."""
    skipped_count: int = 0


def schema() -> tantivy.Schema:
    """The fields of an index. `page` is the id on the row that holds a document's text, `doc` the id on every row."""
    made = tantivy.SchemaBuilder()
    made.add_text_field("doc", stored=True, tokenizer_name="raw", index_option="basic")
    made.add_text_field("page", tokenizer_name="raw", index_option="basic")
    made.add_text_field("address", tokenizer_name="raw", index_option="basic")
    made.add_text_field("body", tokenizer_name="hub", index_option="freq")
    for name in ("title", "text", "url", "links"):
        made.add_bytes_field(name, stored=True)
    for name in ("start", "end", "passage"):
        made.add_unsigned_field(name, stored=True)
    made.add_unsigned_field("order", fast=True)
    return made.build()


def order_of(id: str) -> int:
    """The first eight bytes of an id as a number: where two differ, the ids stand in the same order."""
    return int.from_bytes(id.encode()[:8].ljust(8, b"\0"), "big")


def analyzer() -> tantivy.TextAnalyzer:
    """How text becomes terms, in documents and queries: words, lower case, without accents, by their English stem."""
    made = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    made = made.filter(tantivy.Filter.remove_long(64)).filter(tantivy.Filter.lowercase())
    return made.filter(tantivy.Filter.ascii_fold()).filter(tantivy.Filter.stemmer("english")).build()


def build(
    documents: Iterable[Document | Skipped],
    folder: Path,
    *,
    name: str,
    prune: bool = True,
    progress: Callable[[Built], None] = lambda built: None,
    facts: Mapping[str, Any] | None = None,
) -> Built:
    """Bring the index in `folder` up to the corpus.

    Args:
        prune: remove documents that the corpus does not have any more.
        progress: called from time to time with what was done so far.
        facts: kept in `corpus.json`, for whoever asks where the corpus came from.

    Raises:
        UserError: the folder holds something else, another run writes it, the corpus has no document, or the index
            cannot be written (disk full); what was committed before stays as it is.
    """
    _prepare(folder)
    index = _open(folder)
    writer = _writer(index, folder)
    _make_room(folder)
    ledger = Ledger(folder / "ledger.sqlite")
    try:
        run = _Run(index, writer, ledger, progress)
        built = run.all(documents, prune)
        _write_facts(folder, {**(facts or {}), "name": name, "documents": ledger.count()})
    except (OSError, sqlite3.Error) as error:
        raise _failed(folder, error) from error
    finally:
        ledger.close()
    return built


class _Run:
    """One run of the writer."""

    def __init__(
        self, index: tantivy.Index, writer: tantivy.IndexWriter, ledger: Ledger, progress: Callable[[Built], None]
    ) -> None:
        self._index, self._writer, self._ledger, self._progress = index, writer, ledger, progress
        self._built, self._waiting, self._chars = Built(), 0, 0

    def all(self, documents: Iterable[Document | Skipped], prune: bool) -> Built:
        """Every document, and what is gone. Errors of tantivy, which are of any type, become OSError."""
        try:
            for document in documents:
                self._one(document)
            self._has_some()
            if prune and self._built.skipped_count == 0:
                self._prune()
            self._commit(ended=True)
            self._writer.wait_merging_threads()
        except (ValueError, RuntimeError) as error:
            raise OSError(str(error)) from error
        except BaseException as error:
            if type(error).__name__ == "PanicException":
                raise OSError(f"the index writer failed: {error}") from None
            raise
        self._progress(self._built)
        return self._built

    def _one(self, document: Document | Skipped) -> None:
        built = self._built
        if isinstance(document, Skipped):
            built.skipped_count += 1
            built.skipped += [document] if len(built.skipped) < 100 else []
            return
        content = digest(document)
        if self._ledger.has(document.id, content):
            built.unchanged += 1
        else:
            self._put(document)
            self._ledger.put(document.id, content)
            built.added += 1
            self._waiting += 1
            self._chars += len(document.text)
        if self._waiting >= COMMIT_DOCUMENTS or self._chars >= COMMIT_CHARS:
            self._commit()
        if (built.added + built.unchanged) % 2000 == 0:
            self._progress(built)

    def _has_some(self) -> None:
        """Raises UserError where nothing can be used: what was indexed before is not taken for gone."""
        built = self._built
        if not built.added and not built.unchanged:
            first = f": {built.skipped[0].place} {built.skipped[0].why}" if built.skipped else ""
            left = f"; {built.skipped_count} were left out{first}" if built.skipped_count else ""
            raise UserError(f"the corpus has no document that can be used{left}; the index is as it was")

    def _put(self, document: Document) -> None:
        # A document of an earlier run, or of a run that was ended before it wrote its ledger, is replaced.
        self._writer.delete_documents_by_term("doc", document.id)
        cut = list(spans(document.text))
        for number, (start, end) in enumerate(cut):
            row = tantivy.Document(doc=document.id, start=start, end=end, passage=number)
            row.add_unsigned("order", order_of(document.id))
            row.add_text("body", f"{document.title}\n{document.text[start:end]}")
            if number == 0:
                row.add_text("page", document.id)
                row.add_bytes("title", document.title.encode())
                row.add_bytes("text", document.text.encode())
                if document.url:
                    row.add_bytes("url", document.url.encode())
                    row.add_text("address", document.url[:4096])
                if document.links:
                    row.add_bytes("links", json.dumps(document.links, ensure_ascii=False).encode())
            self._writer.add_document(row)
        self._built.passages += len(cut)

    def _prune(self) -> None:
        gone = self._ledger.gone()
        for id in gone:
            self._writer.delete_documents_by_term("doc", id)
        self._ledger.drop(gone)
        self._built.removed = len(gone)

    def _commit(self, *, ended: bool = False) -> None:
        if self._waiting or ended:
            self._writer.commit()
            self._ledger.commit(ended=ended)
            self._waiting = self._chars = 0


def segment_files(folder: Path) -> list[Path]:
    """The files of the index as its last commit names them.

    Raises:
        OSError, ValueError, KeyError: there is no commit that can be read.
    """
    meta = json.loads((folder / SEGMENTS / "meta.json").read_text(encoding="utf-8"))
    names = [row["segment_id"].replace("-", "") for row in meta["segments"]]
    return sorted(path for name in names for path in (folder / SEGMENTS).glob(f"{name}.*"))


def file_digests(paths: Iterable[Path], known: Mapping[str, Any]) -> dict[str, list[Any]]:
    """[size, hash] of files by name; a file that is known with the same size keeps its hash, for files never change."""
    rows: dict[str, list[Any]] = {}
    for path in paths:
        size = path.stat().st_size
        row = known.get(path.name)
        if row is None or row[0] != size:
            with path.open("rb") as stream:
                row = [size, hashlib.file_digest(stream, "blake2b").hexdigest()[:32]]
        rows[path.name] = list(row)
    return rows


def _prepare(folder: Path) -> None:
    """Make the folder, or see that it is an index."""
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / SEGMENTS).is_dir():
            raise UserError(f"{folder} is not empty and is no index; give another folder")
        (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error}") from error


def _make_room(folder: Path) -> None:
    """Remove what a run that failed has left; called by the one writer. Raises UserError where little space is left."""
    try:
        named = {path.name for path in segment_files(folder)}
    except (OSError, ValueError, KeyError):
        named = set()
    for path in (folder / SEGMENTS).iterdir() if named else ():
        if path.name not in named and re.match(r"[0-9a-f]{32}\.", path.name):
            path.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < _SPARE_BYTES:
        raise UserError(f"{folder}: only {free >> 20} MiB are free on its disk; nothing was changed")


def _open(folder: Path) -> tantivy.Index:
    try:
        index = tantivy.Index(schema(), path=str(folder / SEGMENTS))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: the index cannot be opened ({error}); remove the folder to build it anew"
        ) from error
    index.register_tokenizer("hub", analyzer())
    return index


def _writer(index: tantivy.Index, folder: Path) -> tantivy.IndexWriter:
    try:
        return index.writer(HEAP_BYTES, 2)
    except (OSError, ValueError) as error:
        if "lock" in str(error).lower():
            raise UserError(f"{folder}: another run is writing this index") from error
        raise UserError(f"{folder}: the index cannot be written: {error}") from error


def _write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    path = folder / FACTS
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        known = {}
    row = {"format": FORMAT, **facts, "files": file_digests(segment_files(folder), known)}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(row, indent=1), encoding="utf-8")
    os.replace(fresh, path)


def _failed(folder: Path, error: Exception) -> UserError:
    free = shutil.disk_usage(folder).free
    full = free < _SPARE_BYTES or "No space left" in str(error) or "disk is full" in str(error)
    why = f"the disk is full ({free >> 20} MiB free)" if full else f"the index could not be written: {error}"
    return UserError(f"{folder}: {why}; what was committed before is as it was")
