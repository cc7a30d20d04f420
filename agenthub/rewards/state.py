"""The check `world_state`: what the episode left behind, in the form of OSWorld's evaluators.

Each test is a getter (`result`) and a metric (`func`) with what is expected; `conj` joins them. The world is stopped
before anything is read, and everything is read from outside it: files, rows of a database, programs that run.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from agenthub.config import ConfigModel
from agenthub.errors import BoxLost, TaskBroken, UserError
from agenthub.rewards.arguments import check
from agenthub.rewards.score import Context, Score

__all__ = ["WorldStateArgs", "world_state"]

_MOST_ROWS = 1000
_MOST_STEPS = 2_000_000
_MOST_TOLD = 120


class Getter(ConfigModel):
    """What of the world is looked at."""

    type: Literal["file", "files", "rows", "programs", "fact"]
    """file: its text, None where it is missing; files: the paths of all; rows: of an SQLite database; programs: names
    of those that run; fact: what the world says of itself."""
    path: str = ""
    query: str = ""
    name: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.type in ("file", "rows") and not self.path:
            raise ValueError(f"{self.type} needs path")
        if self.type == "rows" and not self.query:
            raise ValueError("rows needs query")
        if self.type == "fact" and not self.name:
            raise ValueError("fact needs name")
        return self


class Options(ConfigModel):
    """How a metric compares."""

    strip: bool = True
    """Leave out white space at both ends, and at the end of each line."""
    case: bool = True
    tolerance: float = Field(default=1e-9, ge=0)


class Test(ConfigModel):
    """One getter and its metric."""

    __test__ = False
    result: Getter
    func: Literal[
        "equals", "contains", "lacks", "matches", "number", "exists", "absent", "lines", "includes", "excludes"
    ]
    expected: Any = None
    options: Options = Options()
    feedback: str = ""
    """Said where the test fails, in place of what is wrong in general; never what is expected."""


class WorldStateArgs(ConfigModel):
    """Arguments of `world_state`."""

    sandbox: str = "desktop"
    """Registry name of the sandbox kind whose world is looked at."""
    tests: tuple[Test, ...] = ()
    conj: Literal["and", "or"] = "and"
    """and: every test passes; or: one does."""
    infeasible: bool = False
    """The task cannot be done: it is won by saying so, and by nothing else."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if bool(self.tests) == self.infeasible:
            raise ValueError("give tests, or infeasible")
        return self


@check(WorldStateArgs)
async def world_state(context: Context, args: WorldStateArgs) -> Score:
    """1.0 where the tests pass; a world that is lost scores 0, and so does one that was called infeasible wrongly."""
    if context.workspace is None:
        raise TaskBroken("world_state needs the episode's sandboxes")
    try:
        facts = await context.workspace.facts(args.sandbox)
        said = bool(facts.get("infeasible"))
        if args.infeasible or said:
            won = args.infeasible and said
            return Score(value=float(won), reason="" if won else "whether it can be done was judged wrongly")
        needed = any(test.result.type in ("file", "files", "rows") for test in args.tests)
        changes = await context.workspace.changes(args.sandbox) if needed else ()
    except BoxLost as lost:
        return Score(value=0.0, reason=str(lost))
    except UserError as unread:
        return Score(value=0.0, reason=f"what was left cannot be read: {unread}")
    files = {change.path: change.data for change in changes if change.data is not None}
    failed = [why for test in args.tests if (why := _failed(test, files, facts))]
    won = not failed if args.conj == "and" else len(failed) < len(args.tests)
    return Score(value=float(won), reason="" if won else "; ".join(failed))


def _failed(test: Test, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> str:
    """Why a test fails; empty where it passes."""
    found = _got(test.result, files, facts)
    if _METRICS[test.func](found, test.expected, test.options):
        return ""
    what = test.result.path or test.result.name or test.result.type
    return (test.feedback or f"{what} is not as it should be")[:_MOST_TOLD]


def _got(getter: Getter, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> Any:
    if getter.type == "file":
        data = files.get(getter.path)
        return None if data is None else data.decode("utf-8", "replace")
    if getter.type == "files":
        return sorted(path for path in files if path.startswith(getter.path))
    if getter.type == "rows":
        return _rows(files.get(getter.path), getter.query)
    if getter.type == "programs":
        return sorted(Path(row["program"]).name for row in facts.get("processes", ()))
    return facts.get(getter.name)


def _rows(data: bytes | None, query: str) -> list[list[Any]] | None:
    """What a query finds in a database of which these are the bytes; None where it is none.

    Raises:
        TaskBroken: the query itself cannot be run.
    """
    if data is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        file.write(data)
        file.flush()
        # What is in the file came from the world: nothing but reading, and not for ever.
        connection = sqlite3.connect(f"file:{file.name}?mode=ro&immutable=1", uri=True)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            steps = iter(range(_MOST_STEPS // 1000))
            connection.set_progress_handler(lambda: next(steps, None) is None, 1000)
            return [list(row) for row in connection.execute(query).fetchmany(_MOST_ROWS)]
        except sqlite3.OperationalError as error:
            raise TaskBroken(f"query {query!r}: {error}") from error
        except sqlite3.DatabaseError:
            return None
        finally:
            connection.close()


def _text(value: Any, options: Options) -> str:
    text = "" if value is None else str(value)
    if options.strip:
        text = "\n".join(line.rstrip() for line in text.splitlines()).strip()
    return text if options.case else text.casefold()


def _same(found: Any, expected: Any, options: Options) -> bool:
    if isinstance(found, list):
        return bool(found == expected)
    return found is not None and _text(found, options) == _text(expected, options)


def _inside(found: Any, expected: Any, options: Options) -> bool:
    wanted = expected if isinstance(expected, list) else [expected]
    return found is not None and all(_text(it, options) in _text(found, options) for it in wanted)


def _outside(found: Any, expected: Any, options: Options) -> bool:
    wanted = expected if isinstance(expected, list) else [expected]
    return found is not None and not any(_text(it, options) in _text(found, options) for it in wanted)


def _matching(found: Any, expected: Any, options: Options) -> bool:
    flags = 0 if options.case else re.IGNORECASE
    return found is not None and re.fullmatch(str(expected), _text(found, options), flags) is not None


def _near(found: Any, expected: Any, options: Options) -> bool:
    value = found[0][0] if isinstance(found, list) and found and isinstance(found[0], list) and found[0] else found
    try:
        return abs(float(_text(value, options).replace(",", "")) - float(expected)) <= options.tolerance
    except ValueError:
        return False


def _lines(found: Any, expected: Any, options: Options) -> bool:
    if found is None:
        return False
    return sorted(filter(None, _text(found, options).splitlines())) == sorted(_text(it, options) for it in expected)


_METRICS: Mapping[str, Callable[[Any, Any, Options], bool]] = {
    "equals": _same,
    "contains": _inside,
    "lacks": _outside,
    "matches": _matching,
    "number": _near,
    "exists": lambda found, expected, options: found not in (None, []),
    "absent": lambda found, expected, options: found in (None, []),
    "lines": _lines,
    "includes": lambda found, expected, options: isinstance(found, list) and all(it in found for it in expected),
    "excludes": lambda found, expected, options: isinstance(found, list) and not any(it in found for it in expected),
}
