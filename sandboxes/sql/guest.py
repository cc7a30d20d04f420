"""What runs in the box of a database: one SQLite connection in memory, which reads only.

Sent into a grading box of the Python sandbox as one text, so it has the standard library alone. What a query may do is
counted in steps of SQLite's own machine, so that the same query ends in the same way on a slow machine.
"""

from __future__ import annotations

import sqlite3
from typing import Any

_LOOK = 10_000
"""Steps of the machine between two looks at what is left."""
_MAX_VALUE_BYTES = 1 << 20
_MAX_RESULT_BYTES = 2 << 20
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_PRAGMAS = frozenset({"foreign_key_list", "index_list", "table_info", "table_list"})
# A verdict on a query must be the same a second time, and `load_extension` runs code.
_NO_FUNCTIONS = frozenset({"load_extension", "random", "randomblob", "changes", "last_insert_rowid", "total_changes"})

_state: dict[str, Any] = {}


def open_database(script: str, steps: int) -> list[str]:
    """Make the database of a script; names of its tables. Every query after it has that many steps."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    base.text_factory = _text
    base.executescript(script)
    tables = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    base.execute("PRAGMA query_only = ON")
    base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    base.set_authorizer(_authorize)
    base.set_progress_handler(_spend, _LOOK)
    _state.update(base=base, steps=steps, left=0)
    return tables


def query(sql: str, most: int) -> dict[str, Any]:
    """The columns and at most `most` rows of one statement; `more` where there were more.

    Raises:
        sqlite3.Error: the statement is wrong, or does not only read.
        TimeoutError: its steps are spent.
        MemoryError: its result is too large.
    """
    _state["left"] = _state["steps"]
    try:
        cursor = _state["base"].execute(sql)
        if cursor.description is None:
            raise sqlite3.ProgrammingError("the statement shows nothing; expected one SELECT")
        rows: list[list[Any]] = []
        size, more = 0, False
        for row in cursor:
            if len(rows) == most:
                more = True
                break
            size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if size > _MAX_RESULT_BYTES:
                raise MemoryError("the result is larger than 2 MiB")
            rows.append(list(row))
        return {"columns": [column[0] for column in cursor.description], "rows": rows, "more": more}
    except sqlite3.OperationalError as error:
        if str(error) != "interrupted":
            raise
        raise TimeoutError(f"stopped after {_state['steps']:,} steps") from None
    except sqlite3.Warning as error:
        # Python 3.11 says so where a second statement follows.
        raise sqlite3.ProgrammingError(str(error)) from None


def _authorize(action: int, first: str | None, second: str | None, database: str | None, within: str | None) -> int:
    allowed = action in _READS
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = second is not None and second.lower() not in _NO_FUNCTIONS
    if action == sqlite3.SQLITE_PRAGMA:
        allowed = first in _PRAGMAS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _spend() -> int:
    _state["left"] -= _LOOK
    return int(_state["left"] < 0)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")
