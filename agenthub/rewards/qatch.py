"""Measures of a query's result against the expected one: execution accuracy, and QATCH's five.

QATCH: Papicchio, Papotti, Cagliero, NeurIPS 2023 (Datasets and Benchmarks), with its code's ways: cells as sets, rows
whose columns may stand in any order. Values here are not rounded to three digits as there. A table is a list of rows.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["MEASURES", "Table", "execution", "normal"]

Table = Sequence[tuple[Any, ...]]
_DIGITS = 9
_MOST_WORK = 2_000_000
"""Rows that are looked at for other orders of the columns before two tables count as different."""


def normal(rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Rows whose values compare by what they say: 2.0 is 2, and other floats have 9 digits, as a sum's order must not
    matter. The measures take such rows."""
    return [tuple(_value(value) for value in row) for row in rows]


def _value(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.{_DIGITS}g}")


def execution(expected: Table, given: Table, *, ordered: bool = False) -> float:
    """1 where both hold the same rows as often, for some order of the columns; `ordered`: in the same order.

    One order of the columns for all rows: a row's values may not be swapped by themselves.
    """
    if len(expected) != len(given):
        return 0.0
    if not expected:
        return 1.0
    width = len(expected[0])
    if len(given[0]) != width:
        return 0.0
    compared: Callable[[Table], Any] = list if ordered else Counter
    left = _MOST_WORK

    def fits(taken: tuple[int, ...]) -> bool:
        """The columns taken so far hold what the first ones of `expected` do, and the others can follow."""
        nonlocal left
        if len(taken) == width:
            return True
        goal = compared([row[: len(taken) + 1] for row in expected])
        tried = set()
        for at in range(width):
            column = tuple(row[at] for row in given)
            if at in taken or column in tried or left < 0:
                continue
            tried.add(column)
            left -= len(given)
            order = (*taken, at)
            if compared([tuple(row[place] for place in order) for row in given]) == goal and fits(order):
                return True
        return False

    return float(fits(()))


def _share(expected: Table, given: Table, of: Callable[[], float]) -> float:
    """1 where both are empty, 0 where one is, else the measure."""
    if not expected and not given:
        return 1.0
    return of() if expected and given else 0.0


def _cells(table: Table) -> set[Any]:
    return set(itertools.chain.from_iterable(table))


def cell_precision(expected: Table, given: Table) -> float:
    """|cells of both| / |cells given|; cells as sets, so how often one stands there is the other measures' matter."""
    return _share(expected, given, lambda: len(_cells(expected) & _cells(given)) / len(_cells(given)))


def cell_recall(expected: Table, given: Table) -> float:
    """|cells of both| / |cells expected|."""
    return _share(expected, given, lambda: len(_cells(expected) & _cells(given)) / len(_cells(expected)))


def tuple_cardinality(expected: Table, given: Table) -> float:
    """The smaller number of rows over the larger."""
    return _share(expected, given, lambda: min(len(expected), len(given)) / max(len(expected), len(given)))


def tuple_constraint(expected: Table, given: Table) -> float:
    """The share of distinct expected rows that are given exactly as often; columns in any order."""

    def share() -> float:
        wanted, had = (Counter(_bag(row) for row in table) for table in (expected, given))
        return sum(had[row] == count for row, count in wanted.items()) / len(wanted)

    return _share(expected, given, share)


def _bag(row: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    # Values of several types have no order of their own.
    return tuple(sorted(("n" if isinstance(v, int | float) else type(v).__name__, repr(v)) for v in row))


def tuple_order(expected: Table, given: Table) -> float:
    """Spearman's rank correlation of the rows that both hold, first occurrences, moved to 0..1; none in common: 0.5."""

    def share() -> float:
        first, second = dict.fromkeys(expected), dict.fromkeys(given)
        common = [row for row in second if row in first]
        ranks = {row: rank for rank, row in enumerate(row for row in first if row in second)}
        if not common:
            return 0.5
        n = max(len(common), 2)
        squares = sum((rank - ranks[row]) ** 2 for rank, row in enumerate(common))
        return (2 - 6 * squares / (n * (n * n - 1))) / 2

    return _share(expected, given, share)


MEASURES: Mapping[str, Callable[[Table, Table], float]] = {
    "execution": execution,
    "cell_precision": cell_precision,
    "cell_recall": cell_recall,
    "tuple_cardinality": tuple_cardinality,
    "tuple_constraint": tuple_constraint,
    "tuple_order": tuple_order,
}
"""By QATCH's names; each takes (expected, given) and gives 0 to 1."""
