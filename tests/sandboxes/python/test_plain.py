"""Plain values survive the wire with their exact types, and nothing else gets through."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.sandboxes.python.plain import MAX_DEPTH, NotPlain, pack, unpack

HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
PLAIN = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=3) | st.tuples(inner),
    max_leaves=15,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["t", "v", "x"]), inner, max_size=3)
        | st.fixed_dictionaries(
            {"t": st.sampled_from(["int", "float", "bytes", "complex", "tuple", "set", "dict", "no"]), "v": inner}
        )
    ),
    max_leaves=15,
)


def same(left: Any, right: Any) -> bool:
    """Equal in value and exact type; NaN equals NaN, 0.0 does not equal -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, complex):
        return repr(left.real) == repr(right.real) and repr(left.imag) == repr(right.imag)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=False)
        return len(left) == len(right) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(left, set | frozenset):
        return sorted(map(_ordered, left)) == sorted(map(_ordered, right))
    return bool(left == right)


def _ordered(value: Any) -> str:
    """A repr that does not depend on the order within sets."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_ordered, value))})"
    if isinstance(value, tuple):
        return f"tuple({list(map(_ordered, value))})"
    return repr(value)


@given(PLAIN)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    assert same(unpack(json.loads(json.dumps(pack(value)))), value)


@given(JSON)
def test_no_form_makes_anything_but_a_plain_value_or_an_error(form: Any) -> None:
    try:
        value = unpack(form)
    except NotPlain:
        return
    assert same(unpack(json.loads(json.dumps(pack(value)))), value)


class Text(str):
    """A subclass, which is not plain."""


@pytest.mark.parametrize(
    "value", [object(), Text("x"), [Text("x")], {Text("k"): 1}, iter([1]), bytearray(b"x"), float, range(3)]
)
def test_what_is_not_plain_is_refused(value: Any) -> None:
    with pytest.raises(NotPlain):
        pack(value)


@pytest.mark.parametrize(
    "form",
    [
        {"t": "int", "v": "no"},
        {"t": "int", "v": 5},
        {"t": "float", "v": "1.5"},
        {"t": "bytes", "v": "zz"},
        {"t": "complex", "v": ["1"]},
        {"t": "complex", "v": 3},
        {"t": "dict", "v": [[1]]},
        {"t": "dict", "v": [[[], 1]]},
        {"t": "set", "v": [[1]]},
        {"t": "object", "v": []},
        {"t": ["set"], "v": []},
        {"t": "set"},
        {"t": "set", "v": [], "w": 0},
        math.inf,
        2**60,
    ],
)
def test_a_malformed_form_is_refused(form: Any) -> None:
    with pytest.raises(NotPlain):
        unpack(form)


def test_depth_is_bounded_both_ways() -> None:
    deep: Any = 0
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(NotPlain, match="deeper"):
        pack(deep)
    with pytest.raises(NotPlain, match="deeper"):
        unpack(deep)
