"""How a number is read, and when two texts are the same."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.rewards.answers import number, same_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", Fraction(72)),
        (" -72 ", Fraction(-72)),
        ("+3", Fraction(3)),
        ("1,234,567.5", Fraction(12345675, 10)),
        ("$18", Fraction(18)),
        ("-$1,000", Fraction(-1000)),
        ("18.", Fraction(18)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1e-3", Fraction(1, 1000)),
        ("25%", Fraction(25)),
        ("3/4", Fraction(3, 4)),
        ("007", Fraction(7)),
    ],
)
def test_a_number_is_read_exactly(text: str, value: Fraction) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "seventy-two", "72 eggs", "the answer is 72", "7 2", "1,23", "12,34,567", "1.2.3", "0x10", "1_000",
        "--3", "nan", "inf", "-inf", "1e9999", "1e-9999", "3/0", "１２", "٣", "7\n2", "72, 72", ".", "+", "$", "%", 
        "e5", "1e", "1" * 300, "True", "72=72", "60+12", "\\frac{1}{2}",
    ],
)  # fmt: skip
def test_anything_but_one_number_is_none(text: str) -> None:
    assert number(text) is None


def test_values_that_are_no_text() -> None:
    assert number(7) == 7
    assert number(0.1) == Fraction(1, 10)
    assert number(True) is None
    assert number(float("nan")) is None
    assert number(float("inf")) is None
    assert number(None) is None
    assert number([7]) is None


@settings(deadline=None)
@given(st.integers())
def test_every_integer_is_read_back(value: int) -> None:
    if abs(value) < 10**150:
        assert number(str(value)) == value
        assert number(f"{value:,}") == value


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back_from_its_shortest_text(value: float) -> None:
    assert number(repr(value)) == number(value) == Fraction(repr(value))


@settings(deadline=None)
@given(st.text(max_size=50))
def test_any_text_is_a_number_or_none(text: str) -> None:
    value = number(text)
    assert value is None or any(character in "0123456789" for character in text)


@settings(deadline=None)
@given(st.text(alphabet="0123456789.,+-eE$%/ ", max_size=12))
def test_number_like_text_never_raises_and_agrees_with_python_where_python_reads_it(text: str) -> None:
    value = number(text)
    if value is not None and text.strip().lstrip("+-").isdigit():
        assert value == int(text)


def test_white_space_does_not_count_and_case_may() -> None:
    assert same_text("  a \n b", "a b")
    assert not same_text("A b", "a b")
    assert same_text("A b", "a b", case=False)
    assert same_text("e\u0301", "\u00e9")
    assert not same_text("ab", "a b")
