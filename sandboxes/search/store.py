"""What live calls gave, kept by kind, parameters and day, so that it can be played again to the byte."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenthub.errors import UserError
from agenthub.sandboxes.search.places import corpora_folder

__all__ = ["VARIABLE", "Recording", "Store", "store_path"]

VARIABLE = "AGENTHUB_RECORDINGS"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    kind TEXT NOT NULL, params TEXT NOT NULL, day TEXT NOT NULL,
    value TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (kind, params, day)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a call gave."""

    value: Mapping[str, Any]
    day: str
    """YYYY-MM-DD on which it was asked for."""


def store_path(name: str) -> Path:
    """The file of a store by its name.

    Raises:
        UserError: the name is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f"a store is named {name!r}; expected letters, digits, dots and dashes")
    return Path(os.environ.get(VARIABLE) or corpora_folder().parent / "recordings") / f"{name}.sqlite"


class Store:
    """One file of recordings; may be used from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: the file cannot be opened as a store.
        """
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: the recordings cannot be used: {error}") from error

    def get(self, kind: str, params: Mapping[str, Any], day: str = "") -> Recording | None:
        """What was kept of a call on that day, on the latest where none is said; None where there is nothing.

        Raises:
            UserError: what was kept has changed since.
        """
        query = "SELECT value, sha256, day FROM calls WHERE kind=? AND params=?" + (" AND day=?" if day else "")
        values = (kind, _key(params), *([day] if day else []))
        with self._lock:
            row = self._base.execute(f"{query} ORDER BY day DESC LIMIT 1", values).fetchone()
        if row is None:
            return None
        if hashlib.sha256(row[0].encode()).hexdigest() != row[1]:
            raise UserError(f"the recording of {kind} on {row[2]} is damaged")
        return Recording(value=json.loads(row[0]), day=row[2])

    def put(self, kind: str, params: Mapping[str, Any], day: str, value: Mapping[str, Any]) -> None:
        """Keep what a call gave.

        Raises:
            UserError: it cannot be written.
        """
        text = json.dumps(value, sort_keys=True)
        row = (kind, _key(params), day, text, hashlib.sha256(text.encode()).hexdigest())
        try:
            with self._lock:
                self._base.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise UserError(f"a recording could not be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True, separators=(",", ":"))
