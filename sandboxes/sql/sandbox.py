"""The factory of SQL sandboxes and their sessions. A database lives in a grading box of the Python sandbox.

Nothing of a query lasts: a box that a query ends is followed by a fresh one with the same database, so an episode is
never lost to what its policy asked.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenthub.errors import HostFault, UnknownName, UserError
from agenthub.records import Call, Observation, Text, frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, CodeBox, Sandbox, SandboxFactory, SandboxSpec, ToolSpec
from agenthub.sandboxes.fileless import NoFiles

__all__ = ["SqlSandbox", "SqlSession", "shown"]

_OPEN_S = 10.0
_MOST_CELL = 120
_GUEST = Path(__file__).with_name("guest.py").read_text(encoding="utf-8")
_TOOL = ToolSpec(
    name="sql",
    description="Runs one SELECT on the task's SQLite database, which cannot be changed, and shows its first rows.",
    parameters=frozen(
        {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "One statement of SQL, in SQLite's dialect."}},
            "required": ["query"],
            "additionalProperties": False,
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The tool's settings in a suite."""

    database: str
    """SQL that makes the database: its tables and their rows."""
    rows: int = 20
    """Rows of a result that are shown."""
    steps: int = 20_000_000
    """Steps of SQLite's machine that a query may take; about a second."""
    shown: int = 8192
    """Characters of a result that are shown."""


class SqlSession(NoFiles):
    """A `Sandbox`."""

    def __init__(self, factory: SqlSandbox, spec: SandboxSpec, settings: Settings, box: CodeBox) -> None:
        self._factory, self._spec, self._settings = factory, spec, settings
        self._box: CodeBox | None = box

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """As Sandbox.call says; BoxLost is never raised."""
        query = call.arguments.get("query")
        if not isinstance(query, str) or len(call.arguments) != 1:
            return _failed(call, "error: the tool takes one argument, query, a string")
        if self._box is None:
            self._box = await self._again()
        done = await self._box.invoke("query", [query, self._settings.rows], {}, timeout_s=timeout_s)
        if done.lost:
            # How it ended follows from the machine; what is shown of it does not.
            await self.close()
            return _failed(call, "error: the query took too long or too much")
        if done.error is not None:
            return _failed(call, done.error)
        try:
            text = shown(done.value)
        except (KeyError, TypeError, ValueError):
            await self.close()
            return _failed(call, "error: the database gave no table")
        if len(text) > self._settings.shown:
            whole = hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
            cut = f"{text[: self._settings.shown]}\n[{len(text) - self._settings.shown} characters were cut]\n"
            return Observation(call_id=call.id, parts=(Text(text=cut),), truncated=True, sha256=whole)
        return Observation(call_id=call.id, parts=(Text(text=text),), truncated=bool(done.value.get("more")))

    async def _again(self) -> CodeBox:
        """The same database in a fresh box. Raises HostFault, as its script has worked before."""
        try:
            return await self._factory.code_box(self._spec)
        except UserError as error:
            raise HostFault(f"the database could not be made again: {error}") from error

    async def fork(self, n: int) -> Sequence[Sandbox]:
        """Refused: a fresh sandbox is a copy."""
        raise UserError("the SQL sandbox has no state to copy")

    async def close(self) -> None:
        """Free the box."""
        box, self._box = self._box, None
        if box is not None:
            await box.close()


class SqlSandbox:
    """A `SandboxFactory` over that of Python boxes, which it owns."""

    tools: tuple[ToolSpec, ...] = (_TOOL,)

    def __init__(self, isolation: str = "jail") -> None:
        self._python: SandboxFactory = registry("sandbox").load("python")(isolation=isolation)

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do."""
        return Capabilities(persistent=False, deterministic=True, fork="stateless")

    @property
    def warm(self) -> int:
        """Boxes that wait for a database."""
        return int(getattr(self._python, "warm", 0))

    async def open(self) -> None:
        """Start the boxes' isolation. Raises as Isolation.open does."""
        await self._python.open()

    async def start(self, spec: SandboxSpec) -> SqlSession:
        """A fresh sandbox with its database. Raises as SandboxFactory.start says, UserError for a script that fails."""
        if spec.files:
            raise UserError("the SQL sandbox has no files; its database is the setting `database`")
        settings = _settings(spec.params)
        return SqlSession(self, spec, settings, await self.code_box(spec))

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        """A box with the database, whose global `query(sql, most)` gives {columns, rows, more}. Raises as `start`."""
        settings = _settings(spec.params)
        box = await self._python.code_box(dataclasses.replace(spec, params=frozen(), files=frozen()))
        try:
            loaded = await box.load(_GUEST, timeout_s=_OPEN_S)
            if loaded.error is not None:
                raise HostFault(f"the SQL sandbox did not start: {loaded.error}")
            made = await box.invoke("open_database", [settings.database, settings.steps], {}, timeout_s=_OPEN_S)
            if made.lost:
                raise HostFault(f"the database was not made: {made.error}")
            if made.error is not None:
                raise UserError(f"the script of the database fails: {made.error}")
        except BaseException:
            await box.close()
            raise
        return box

    async def close(self) -> None:
        """Free everything that was started."""
        await self._python.close()


def shown(result: Mapping[str, Any]) -> str:
    """A result as a table in text: its columns, a line for each row, and how many there are.

    Raises:
        KeyError, TypeError, ValueError: it is no result.
    """
    columns, rows = [str(name) for name in result["columns"]], result["rows"]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise ValueError("no table")
    lines = [" | ".join(_cell(value) for value in row) for row in (columns, *rows)]
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    return "\n".join([*lines, f"(the first {count} of more)" if result["more"] else f"({count})"]) + "\n"


def _cell(value: Any) -> str:
    text = "NULL" if value is None else value.hex() if isinstance(value, bytes) else str(value)
    # A line is a row whatever a value holds.
    text = text.replace("\n", "\\n").replace("\r", "\\r")
    return text if len(text) <= _MOST_CELL else f"{text[:_MOST_CELL]}..."


def _failed(call: Call, text: str) -> Observation:
    return Observation(call_id=call.id, parts=(Text(text=f"{text}\n", channel="error"),), failed=True)


def _settings(params: Mapping[str, Any]) -> Settings:
    """The settings of a suite. Raises UserError, UnknownName."""
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in params:
        if name not in known:
            raise UnknownName("setting of the SQL sandbox", str(name), known)
    if not isinstance(params.get("database"), str):
        raise UserError("the SQL sandbox needs its setting `database`, a text of SQL")
    for name, most in (("rows", 1000), ("steps", 10**10), ("shown", 1 << 20)):
        value = params.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise UserError(f"setting {name!r} of the SQL sandbox is {value!r}; expected a number from 1 to {most}")
    return Settings(**params)
