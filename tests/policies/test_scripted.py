"""Scripted policies play texts by turn."""

from __future__ import annotations

import pytest

from agenthub.errors import UserError
from agenthub.policies.scripted import ScriptedPolicy


def test_an_oracle_plays_the_solution_in_order() -> None:
    oracle = ScriptedPolicy.oracle(("first", "second"))
    assert [oracle.act(turn, "whatever was shown") for turn in range(3)] == ["first", "second", ""]


def test_an_oracle_without_a_solution_says_where() -> None:
    with pytest.raises(UserError, match=r"math\.yaml:3: the task has no solution"):
        ScriptedPolicy.oracle((), "math.yaml:3")


def test_a_noop_never_acts_and_a_fixed_policy_repeats_its_last_text() -> None:
    assert ScriptedPolicy.noop().act(0, "") == ScriptedPolicy.noop().act(9, "")
    fixed = ScriptedPolicy.fixed(["a", "b"])
    assert [fixed.act(turn, "") for turn in range(4)] == ["a", "b", "b", "b"]
