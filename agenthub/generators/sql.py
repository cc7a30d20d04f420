"""Questions to small invented databases, each with the statement that answers it.

A task has one database to look at and others, hidden, of the same tables with other rows. It is kept only where the
reference gives rows on each and not the same rows on all, so that neither nothing nor a constant is right.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.generators.parts import part_of
from agenthub.generators.sql_worlds import WORLDS, Question

__all__ = ["generate", "rows_of"]

_KEYS = ("hidden", "levels", "measures", "part")
_POOL = 40
"""Databases of each world that tasks look at; hidden ones are drawn from as many others."""
_TRIES = 2_000


def generate(config: Mapping[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Task rows, for a suite's source. The oracle looks at the tables, tries the statement and gives it.

    Args:
        config: `part` (`train` or `eval`), `levels` (list of 1 to 3, all where absent), `hidden` (how many hidden
            databases, 2 where absent), `measures` (QATCH's, whose mean is then the score in place of execution).

    Raises:
        UserError: a setting is wrong, or there are not `count` distinct tasks.
    """
    for key in config:
        if key not in _KEYS:
            raise UnknownName("setting of the SQL generator", str(key), _KEYS)
    part, levels, hidden = config.get("part"), config.get("levels", [1, 2, 3]), config.get("hidden", 2)
    if part not in (None, "train", "eval"):
        raise UnknownName("part of the questions", str(part), ("train", "eval"))
    if not isinstance(levels, list) or not levels or not all(type(it) is int and 1 <= it <= 3 for it in levels):
        raise UserError(f"generator sql: levels is {levels!r}; expected a list of numbers from 1 to 3")
    if type(hidden) is not int or not 0 <= hidden <= 8:
        raise UserError(f"generator sql: hidden is {hidden!r}; expected a number from 0 to 8")
    stream = _tasks(random.Random(f"sql/{seed}"), part, levels, hidden)
    for index in range(count):
        drawn = next(stream, None)
        if drawn is None:
            raise UserError(f"generator sql has only {index} distinct tasks here; {count} were asked for")
        yield _row(index, *drawn, measures=config.get("measures"))


Drawn = tuple[str, Question, tuple[str, ...]]


def _tasks(rng: random.Random, part: str | None, levels: list[int], hidden: int) -> Iterator[Drawn]:
    """(world, question, its databases, the visible one first), all distinct, until too many draws give none."""
    seen, misses = set[tuple[str, str]](), 0
    while misses < _TRIES:
        name, level = rng.choice(sorted(WORLDS)), rng.choice(levels)
        question = rng.choice([make for make in WORLDS[name].questions if make.level == level]).draw(rng)
        shown, others = rng.randrange(_POOL), rng.sample(range(_POOL, 2 * _POOL), hidden)
        scripts = tuple(_script(name, number) for number in (shown, *others))
        misses += 1
        if (question.text, scripts[0]) in seen or (part is not None and part_of(question.text) != part):
            continue
        if _tells_apart(question, scripts):
            seen.add((question.text, scripts[0]))
            misses = 0
            yield name, question, scripts


def _tells_apart(question: Question, scripts: tuple[str, ...]) -> bool:
    results = [rows_of(script, question.sql) for script in scripts]
    return all(results) and (len(scripts) == 1 or any(rows != results[0] for rows in results[1:]))


@lru_cache(maxsize=4 * _POOL)
def _script(world: str, number: int) -> str:
    return WORLDS[world].script(random.Random(f"sql/{world}/{number}"))


def rows_of(script: str, sql: str) -> list[tuple[Any, ...]]:
    """What a trusted statement gives on a trusted script's database."""
    base = sqlite3.connect(":memory:")
    try:
        base.executescript(script)
        return base.execute(sql).fetchall()
    finally:
        base.close()


def _row(
    index: int, world: str, question: Question, scripts: tuple[str, ...], *, measures: list[str] | None
) -> dict[str, Any]:
    args: dict[str, Any] = {"reference": question.sql, "hidden": list(scripts[1:]), "ordered": question.ordered}
    checks = [{"uses": "sql_execution", "args": args}]
    if measures is not None:
        checks = [{"uses": "qatch", "args": args | {"measures": list(measures)}}]
    tables = WORLDS[world].tables
    return {
        "id": f"{index:05d}",
        "prompt": {"user": f"{tables}\n\n{question.text}"},
        "tools": [{"uses": "sql", "config": {"database": scripts[0]}}],
        "verifier": {"checks": checks, "scale": 0.85},
        "solution": {"turns": [f"<sql> {question.sql} </sql>", f"<answer> {question.sql} </answer>"]},
        "metadata": {"world": world, "level": question.level, "ordered": question.ordered},
    }
