"""The arithmetic generator: what it promises of questions and answers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.errors import UnknownName, UserError
from agenthub.generators.arithmetic import KINDS, generate, problems, solution
from agenthub.generators.parts import part_of


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=0, max_value=2**40))
def test_the_expression_gives_the_answer_and_holds_the_questions_numbers(seed: int) -> None:
    for problem in problems(seed, 20):
        assert eval(problem.expression) == problem.answer
        digits = [text for text in "".join(c if c.isdigit() else " " for c in problem.question).split()]
        assert all(number in problem.expression for number in digits)
        assert len(problem.question) <= 20
        assert abs(problem.answer) >= 100


def test_a_seed_gives_the_same_problems_and_another_seed_others() -> None:
    assert problems(7, 50) == problems(7, 50)
    assert problems(7, 50) != problems(8, 50)
    assert problems(7, 50)[:20] == problems(7, 20)


def test_no_answer_is_worth_guessing() -> None:
    answers = Counter(problem.answer for problem in problems(3, 5000))
    assert answers.most_common(1)[0][1] / 5000 < 0.05


def test_parts_never_meet_whatever_the_seed() -> None:
    train = {problem.question for seed in range(5) for problem in problems(seed, 2000, part="train")}
    held_out = {problem.question for seed in range(5) for problem in problems(seed, 500, part="eval")}
    assert not train & held_out
    assert all(part_of(question) == "eval" for question in held_out)


def test_kinds_may_be_chosen() -> None:
    for kind in KINDS:
        assert {problem.kind for problem in problems(0, 20, [kind])} == {kind}
    assert {problem.kind for problem in problems(0, 200)} == set(KINDS)


def test_rows_are_distinct_and_carry_their_oracle() -> None:
    rows = list(generate({"kinds": ["pair"]}, 0, 500))
    assert len({row["prompt"]["user"] for row in rows}) == 500
    (first,) = problems(0, 1, ["pair"])
    assert rows[0]["prompt"]["user"] == first.question
    assert rows[0]["solution"]["turns"] == list(solution(first))
    assert solution(first) == (f"```python\nprint({first.expression})\n```", f"\\boxed{{{first.answer}}}")


def test_bad_settings_are_told() -> None:
    with pytest.raises(UnknownName, match="no kind of arithmetic named 'pears'; did you mean 'pair'"):
        list(generate({"kinds": ["pears"]}, 0, 1))
    with pytest.raises(UnknownName, match="no setting of the arithmetic generator named 'knids'"):
        list(generate({"knids": []}, 0, 1))
    with pytest.raises(UnknownName, match="no part of the arithmetic named 'test'"):
        list(generate({"part": "test"}, 0, 1))
    with pytest.raises(UserError, match="kinds is empty"):
        list(generate({"kinds": []}, 0, 1))
    with pytest.raises(UserError, match=r"has only \d+ distinct questions here; 2000 were asked for"):
        list(generate({"kinds": ["square"]}, 0, 2000))
