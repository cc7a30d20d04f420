"""What runs in the box of a database: one SQLite connection in memory, which reads only.

Sent into a grading box of the Python sandbox as one text, so it has the standard library alone. Only functions whose
result follows from their arguments may be called: a verdict on a query must be the same a second time.
"""

from __future__ import annotations

import sqlite3
from typing import Any

_LOOK = 10_000
"""Steps of SQLite's machine between two looks at what is left."""
_MAX_VALUE_BYTES = 1 << 20
_MAX_RESULT_BYTES = 6 << 20
"""Of a result as it is sent, where a character may take six octets."""
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_PRAGMAS = frozenset({"foreign_key_list", "index_list", "table_info", "table_list"})
_DATES = ("date", "datetime", "julianday", "strftime", "time", "unixepoch")
_PURE = """
abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce concat concat_ws cos cosh count
cume_dist degrees dense_rank exp first_value floor format glob group_concat hex ifnull iif instr json
json_array json_array_length json_extract json_group_array json_group_object json_object json_type json_valid
lag last_value lead length like likelihood likely ln log log10 log2 lower ltrim max min mod nth_value ntile
nullif octet_length percent_rank pi pow power printf quote radians rank replace round row_number rtrim sign
sin sinh sqrt string_agg substr substring sum tan tanh total trim trunc typeof unhex unicode unlikely upper
zeroblob -> ->>
"""
_FUNCTIONS = frozenset([*_PURE.split(), *_DATES])

_state: dict[str, Any] = {}


def open_database(script: str, steps: int) -> list[str]:
    """Make the database of a script; names of its tables. Every query after it has that many steps."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    base.text_factory = _text
    base.executescript(script)
    tables = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    clock = sqlite3.connect(":memory:", isolation_level=None)
    for name in _DATES:
        base.create_function(name, -1, _dated(clock, name), deterministic=True)
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
        cursor = _state["base"].execute(sql.rstrip("; \t\r\n"))
        if cursor.description is None:
            raise sqlite3.ProgrammingError("the statement shows nothing; expected one SELECT")
        columns = [column[0] for column in cursor.description]
        rows: list[list[Any]] = []
        size, more = sum(map(_size, columns)), False
        for row in cursor:
            if len(rows) == most:
                more = True
                break
            size += sum(map(_size, row))
            if size > _MAX_RESULT_BYTES:
                raise MemoryError("the result is too large")
            rows.append(list(row))
        return {"columns": columns, "rows": rows, "more": more}
    except sqlite3.OperationalError as error:
        if str(error) != "interrupted":
            raise
        raise TimeoutError(f"stopped after {_state['steps']:,} steps") from None
    except sqlite3.Warning as error:
        # Python 3.11 says so where a second statement follows.
        raise sqlite3.ProgrammingError(str(error)) from None


def _size(value: Any) -> int:
    """Octets that a value may take as it is sent."""
    return 16 + (6 * len(value) if isinstance(value, str) else 2 * len(value) if isinstance(value, bytes) else 8)


def _dated(clock: sqlite3.Connection, name: str) -> Any:
    """SQLite's own function of that name for every time but now."""

    def made(*given: Any) -> Any:
        when = given[1:] if name == "strftime" else given
        if not when or (isinstance(when[0], str) and when[0].strip().lower() == "now"):
            raise ValueError("no clock here")
        return clock.execute(f"SELECT {name}({', '.join('?' * len(given))})", given).fetchone()[0]

    return made


def _authorize(action: int, first: str | None, second: str | None, database: str | None, within: str | None) -> int:
    allowed = action in _READS
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() in _FUNCTIONS
    if action == sqlite3.SQLITE_PRAGMA:
        allowed = (first or "").lower() in _PRAGMAS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _spend() -> int:
    _state["left"] -= _LOOK
    return int(_state["left"] < 0)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")
