"""The ledger of an index: which document is in it with which content, so that a second run adds what is new alone.

It is written after the index's own commit. Where a run was ended between the two, documents are in the index and not
in the ledger; the next run replaces them by id.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from agenthub.errors import UserError
from agenthub.sandboxes.search.documents import Document

__all__ = ["Ledger", "digest"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, digest BLOB NOT NULL, run INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


def digest(document: Document) -> bytes:
    """16 bytes that stand for everything of a document but its id."""
    made = hashlib.blake2b(digest_size=16)
    for piece in (document.title, document.text, document.url, *(it for link in document.links for it in link)):
        data = piece.encode()
        made.update(len(data).to_bytes(8, "little") + data)
    return made.digest()


class Ledger:
    """One run over the ledger of an index; the only writer."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: the file is no ledger, or cannot be written.
        """
        try:
            self._base = sqlite3.connect(path, isolation_level=None)
            self._base.executescript(_SCHEMA)
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("BEGIN IMMEDIATE")
            row = self._base.execute("SELECT value FROM facts WHERE name='run'").fetchone()
        except sqlite3.Error as error:
            raise UserError(f"{path}: the ledger of the index cannot be used: {error}") from error
        self.run: int = (row[0] if row else 0) + 1
        """Number of this run."""

    def has(self, id: str, content: bytes) -> bool:
        """True where the document is in the index with this content; it is then known to be in the corpus still."""
        row = self._base.execute("SELECT digest, run FROM documents WHERE id=?", (id,)).fetchone()
        if row is None or row[0] != content:
            return False
        if row[1] != self.run:
            self._base.execute("UPDATE documents SET run=? WHERE id=?", (self.run, id))
        return True

    def put(self, id: str, content: bytes) -> None:
        """The document is in the index as of the next commit."""
        self._base.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (id, content, self.run))

    def gone(self) -> list[str]:
        """Ids that this run has not seen."""
        return [row[0] for row in self._base.execute("SELECT id FROM documents WHERE run<>?", (self.run,))]

    def drop(self, ids: list[str]) -> None:
        """The documents are not in the index as of the next commit."""
        self._base.executemany("DELETE FROM documents WHERE id=?", ((id,) for id in ids))

    def commit(self, *, ended: bool = False) -> None:
        """Keep what was put. `ended`: the run has seen the whole corpus; until then a later one goes on with it."""
        if ended:
            self._base.execute("INSERT OR REPLACE INTO facts VALUES ('run', ?)", (self.run,))
        self._base.execute("COMMIT")
        self._base.execute("BEGIN IMMEDIATE")

    def count(self) -> int:
        """Documents in the index."""
        return int(self._base.execute("SELECT count(*) FROM documents").fetchone()[0])

    def close(self) -> None:
        """Forget what was not committed."""
        self._base.close()
