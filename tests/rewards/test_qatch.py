"""QATCH's measures against its documented examples, and what must hold of every pair of tables."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.rewards.qatch import MEASURES, execution, normal

AB, CD = ("a", "b"), ("c", "d")
rows = st.integers(1, 3).flatmap(
    lambda width: st.tuples(
        *[st.lists(st.tuples(*[st.sampled_from([None, 1, 2.5, "a", b"x"])] * width), max_size=5)] * 2
    )
)


@pytest.mark.parametrize(
    ("measure", "expected", "given_rows", "value"),
    [
        ("cell_precision", [AB, CD], [AB, CD], 1.0),
        ("cell_precision", [AB, CD], [AB, ("c", "e")], 0.75),
        ("cell_precision", [AB, CD], [("a",), ("b",), ("c",), ("d",)], 1.0),
        ("cell_recall", [AB, CD], [("a", "x"), ("y", "d")], 0.5),
        ("cell_recall", [AB, CD], [("a", "a"), ("b", "b"), CD], 1.0),
        ("tuple_cardinality", [AB, CD, CD, ("f", "g")], [AB, (3, 2)], 0.5),
        ("tuple_cardinality", [AB, (3, 2)], [AB, CD, CD, ("f", "g")], 0.5),
        ("tuple_cardinality", [AB, (3, 2)], [AB, CD], 1.0),
        ("tuple_constraint", [AB, CD], [AB, AB, CD], 0.5),
        ("tuple_constraint", [AB, CD], [AB, AB, CD, CD], 0.0),
        ("tuple_constraint", [AB], [("b", "a")], 1.0),
        ("tuple_order", [AB, CD], [CD, AB], 0.0),
        ("tuple_order", [("apple", "orange"), ("pear",)], [("pear",)], 1.0),
        ("tuple_order", [AB], [CD], 0.5),
        ("execution", [AB, CD], [CD, AB], 1.0),
        ("execution", [AB, CD], [("b", "a"), ("d", "c")], 1.0),
        ("execution", [AB, CD], [("b", "a"), CD], 0.0),
        ("execution", [AB, AB, CD], [AB, CD, CD], 0.0),
        ("execution", [(1, 2.0)], [(1.0, 2)], 1.0),
        ("execution", [("1",)], [(1,)], 0.0),
        ("execution", [(1,)], [(1, 1)], 0.0),
    ],
)
def test_documented_examples(measure: str, expected: object, given_rows: object, value: float) -> None:
    assert MEASURES[measure](expected, given_rows) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_empty_tables(name: str) -> None:
    assert MEASURES[name]([], []) == 1.0
    assert MEASURES[name]([AB], []) == MEASURES[name]([], [AB]) == 0.0


@given(rows)
def test_every_measure_is_a_share_and_1_for_the_same_table(pair: tuple[list[tuple[object, ...]], ...]) -> None:
    expected, other = pair
    for measure in MEASURES.values():
        assert 0.0 <= measure(expected, other) <= 1.0
        assert measure(expected, expected) == 1.0


@given(rows, st.randoms())
def test_right_rows_are_right_in_every_measure_but_order(
    pair: tuple[list[tuple[object, ...]], ...], rng: object
) -> None:
    expected, other = pair
    if execution(expected, other) == 1.0:
        assert all(measure(expected, other) == 1.0 for name, measure in MEASURES.items() if name != "tuple_order")
    shuffled = list(expected)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert execution(expected, shuffled) == 1.0
    assert execution(expected, shuffled, ordered=True) == float(
        shuffled == expected or bool(_permuted(expected, shuffled))
    )


def _permuted(expected: list[tuple[object, ...]], given_rows: list[tuple[object, ...]]) -> bool:
    width = len(expected[0])
    return any(
        [tuple(row[at] for at in order) for row in given_rows] == expected for order in permutations(range(width))
    )


def test_a_sum_in_another_order_is_the_same_number() -> None:
    assert normal([[0.1 + 0.2 + 0.3]]) == normal([[0.3 + 0.2 + 0.1]])
    assert normal([[1.0001]]) != normal([[1.0002]])


def test_many_equal_columns_do_not_make_it_search_for_ever() -> None:
    zeros = [tuple([0] * 12)] * 3
    assert execution(zeros, list(zeros)) == 1.0
    assert execution([(0,) * 10 + (1, 1)], [(0,) * 11 + (1,)]) == 0.0
    assert execution([(0, 1) * 6, (1, 0) * 6], [(0,) * 6 + (1,) * 6, (1,) * 6 + (0,) * 6]) == 1.0


def test_a_long_table_may_have_its_columns_in_another_order() -> None:
    rows = [(n, -n, n % 7) for n in range(8000)]
    for order in permutations(range(3)):
        assert execution(rows, [tuple(row[at] for at in order) for row in rows]) == 1.0


def test_numbers_are_the_same_by_value() -> None:
    pair = normal([[0, 1234567891]]), normal([[-0.0, 1234567891.0]])
    assert [measure(*pair) for measure in MEASURES.values()] == [1.0] * len(MEASURES)
    assert MEASURES["tuple_constraint"](normal([[2**53]]), normal([[2**53 + 1]])) == 0.0
