"""The checks `sql_execution` and `qatch`: SQL by the rows that it gives, on databases that the policy never saw too.

The candidate's statement and the reference run in boxes of their own, a fresh pair for each database; only rows come
out. A statement that states a constant is right by luck on the visible database, and wrong on the others.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from agenthub.config import ConfigModel
from agenthub.errors import HostFault, TaskBroken, UnknownName
from agenthub.records import frozen
from agenthub.rewards.arguments import check
from agenthub.rewards.qatch import MEASURES, Table, execution, normal
from agenthub.rewards.score import Context, Score
from agenthub.sandbox import Plain, SandboxSpec
from agenthub.suites.task import Task

__all__ = ["QatchArgs", "SqlArgs", "qatch", "sql_execution", "statement"]

_MOST_ROWS = 10_000
_FENCED = re.compile(r"\A\s*```(?:sql|sqlite)?[ \t]*\r?\n(.*?)\r?\n?```\s*\Z", re.DOTALL | re.IGNORECASE)
_PLAIN = (type(None), bool, int, float, str, bytes)


class SqlArgs(ConfigModel):
    """Arguments of `sql_execution`."""

    reference: str = Field(min_length=1)
    """A statement that answers the question."""
    hidden: tuple[str, ...] = ()
    """Scripts of further databases with the same tables; the statement must be right on each."""
    ordered: bool = False
    """The rows' order is asked for."""
    candidate: Literal["answer", "last_call"] = "answer"
    """The statement that is graded: the final answer (a fence around it is dropped), or the last call's query."""
    sandbox: str = "sql"
    """Registry name of the sandbox kind."""
    seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0
    """For each statement on each database."""


class QatchArgs(SqlArgs):
    """Arguments of `qatch`."""

    measures: tuple[str, ...] = Field(("cell_precision", "cell_recall", "tuple_cardinality"), min_length=1)
    """The score is their mean, over all databases; with `ordered`, `tuple_order` is one of them in any case."""


def statement(context: Context, args: SqlArgs) -> str | None:
    """The statement that is graded; None where the episode has none."""
    if args.candidate == "answer":
        fenced = _FENCED.match(context.answer or "")
        return fenced[1] if fenced else context.answer
    names = {tool.name for tool in context.task.tools if tool.uses == args.sandbox}
    calls = (call for turn in context.turns for call in turn.calls if call.tool in names)
    queries = [call.arguments.get("query") for call in calls]
    return next((query for query in reversed(queries) if isinstance(query, str)), None)


def _spec(task: Task, args: SqlArgs) -> SandboxSpec:
    for tool in task.tools:
        if tool.uses == args.sandbox:
            return tool.spec
    raise TaskBroken(f"the task has no tool of the sandbox {args.sandbox!r}")


def _has_tool(task: Task, args: SqlArgs) -> None:
    _spec(task, args)


def _measured(task: Task, args: QatchArgs) -> None:
    _spec(task, args)
    for name in args.measures:
        if name not in MEASURES:
            raise UnknownName("measure", name, MEASURES)


@check(SqlArgs, _has_tool)
async def sql_execution(context: Context, args: SqlArgs) -> Score:
    """1 where the statement gives the reference's rows on every database.

    Raises:
        TaskBroken: the task has no such tool, or the reference fails.
        HostFault: a box failed on our side.
    """
    tables = await _tables(context, args)
    if isinstance(tables, str):
        return Score(value=0.0, reason=tables)
    for index, (expected, given) in enumerate(tables):
        if not await asyncio.to_thread(execution, expected, given, ordered=args.ordered):
            where = "the task's database" if index == 0 else "another database"
            return Score(value=0.0, reason=f"other rows than expected on {where}")
    return Score(value=1.0)


@check(QatchArgs, _measured)
async def qatch(context: Context, args: QatchArgs) -> Score:
    """The mean of the measures over the databases; a statement that fails on one of them scores 0.

    Raises:
        TaskBroken: as `sql_execution`; a measure is not known.
        HostFault: a box failed on our side.
    """
    _measured(context.task, args)
    tables = await _tables(context, args)
    if isinstance(tables, str):
        return Score(value=0.0, reason=tables)
    names = dict.fromkeys([*args.measures, *(["tuple_order"] if args.ordered else [])])
    return Score(value=await asyncio.to_thread(_mean, tables, list(names)))


def _mean(tables: Sequence[tuple[Table, Table]], names: Sequence[str]) -> float:
    values = [MEASURES[name](expected, given) for expected, given in tables for name in names]
    return sum(values) / len(values)


async def _tables(context: Context, args: SqlArgs) -> list[tuple[Table, Table]] | str:
    """(expected, given) on each database, the task's own first; or why there are none."""
    spec = _spec(context.task, args)
    asked = statement(context, args)
    if asked is None or not asked.strip():
        return "no statement was given"
    tables: list[tuple[Table, Table]] = []
    for script in (None, *args.hidden):
        here = spec if script is None else replace(spec, params=frozen({**spec.params, "database": script}))
        done = await _asked(context, args, here, args.reference)
        if done.lost:
            raise HostFault(f"the reference's box ended: {done.error}")
        expected = _rows(done)
        if isinstance(expected, str):
            raise TaskBroken(f"the reference fails: {expected}")
        given = _rows(await _asked(context, args, here, asked))
        if isinstance(given, str):
            return f"the statement fails: {given}"
        tables.append((expected, given))
    return tables


async def _asked(context: Context, args: SqlArgs, spec: SandboxSpec, sql: str) -> Plain:
    """What one statement gives in a fresh box."""
    if context.workspace is None:
        raise TaskBroken("a statement needs a place to run")
    box = await context.workspace.box(args.sandbox, spec)
    try:
        return await box.invoke("query", [sql, _MOST_ROWS], {}, timeout_s=args.seconds)
    finally:
        await box.close()


def _rows(done: Plain) -> Table | str:
    """The rows, or in one line why there are none."""
    if done.error is not None:
        return done.error.strip().splitlines()[0][:200] if done.error.strip() else "failed"
    rows = done.value.get("rows") if isinstance(done.value, Mapping) else None
    whole = isinstance(rows, list) and all(isinstance(row, list) and row for row in rows)
    if not whole or any(type(value) not in _PLAIN for row in rows or () for value in row):
        return "the box gave no table"
    if done.value.get("more") or len({len(row) for row in rows or ()}) > 1:
        return f"more than {_MOST_ROWS:,} rows"
    return normal(rows or [])
