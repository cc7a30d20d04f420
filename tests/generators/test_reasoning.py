"""reasoning-gym's datasets as tasks, and their scorers kept harmless."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.errors import TaskBroken, UnknownName, UserError
from agenthub.generators.reasoning import generate, plain_expression, score

pytest.importorskip("reasoning_gym")

DATASETS = [
    "chain_sum",
    "base_conversion",
    "number_sorting",
    "n_queens",
    "spiral_matrix",
    "simple_integration",
    "word_ladder",
]


@pytest.mark.parametrize("name", DATASETS)
def test_a_datasets_own_answer_scores_1_and_another_less(name: str) -> None:
    row = next(generate({"variant": name}, 5, 3))
    answer = row["solution"]["turns"][0].removeprefix("\\boxed{").removesuffix("}")
    assert score(name, {}, 5, 3, 0, answer).value == 1
    assert score(name, {}, 5, 3, 0, "no idea").value < 0.1
    assert score(name, {}, 5, 3, 0, "").value < 0.1


def test_the_same_seed_gives_the_same_rows() -> None:
    assert list(generate({"variant": "chain_sum"}, 5, 3)) == list(generate({"variant": "chain_sum"}, 5, 3))
    assert list(generate({"variant": "chain_sum"}, 5, 3)) != list(generate({"variant": "chain_sum"}, 6, 3))


def test_settings_reach_the_dataset() -> None:
    (row,) = generate({"variant": "chain_sum", "config": {"min_terms": 6, "max_terms": 6}}, 1, 1)
    assert sum(row["prompt"]["user"].count(sign) for sign in "+-") >= 5


def test_bad_settings_are_told() -> None:
    with pytest.raises(UnknownName, match="no reasoning-gym dataset named 'chain_sun'; did you mean 'chain_sum'"):
        list(generate({"variant": "chain_sun"}, 0, 1))
    with pytest.raises(UnknownName, match="named 'min_term'; did you mean 'min_terms'"):
        list(generate({"variant": "chain_sum", "config": {"min_term": 3}}, 0, 1))
    with pytest.raises(UserError, match="chain_sum refuses its settings"):
        list(generate({"variant": "chain_sum", "config": {"min_terms": -3}}, 0, 1))
    with pytest.raises(UserError, match="needs a dataset"):
        list(generate({}, 0, 1))
    with pytest.raises(UnknownName, match="named 'varient'"):
        list(generate({"varient": "chain_sum"}, 0, 1))
    with pytest.raises(TaskBroken, match="no reasoning-gym dataset"):
        score("chain_sun", {}, 0, 1, 0, "1")


@pytest.mark.parametrize(
    "text",
    [
        "1 + 2*(3 - 4)/5",
        "x**2 + C",
        "sin(x)*exp(2*x)",
        "-3.5",
        "[[1, 2], [3, 4]]",
        "1 0 1\n0 1 1",
        "_ Q _\nQ _ _",
        "['a', 'b']",
    ],
)
def test_plain_expressions_are_handed_over(text: str) -> None:
    assert plain_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "open('x')",
        "[x for x in 'aaaa' for y in 'aaaa']",
        "(lambda: 1)()",
        "9**9**9",
        "(2**64)**64",
        "2**(9*9*9*9)",
        "2**1000",
        "1 << 999",
        "'a' * 999",
        "[0] * 999",
        "print(1)",
        "x.y",
        "f'{x}'",
        "f'{1:999999999}'",
        "sin(x, y=1)",
        "exec('1')",
        "(yield)",
        "a := 1",
        "(" * 2000,
    ],
)
def test_anything_that_runs_or_grows_is_not(text: str) -> None:
    assert not plain_expression(text)


def test_an_answer_that_would_run_code_scores_0_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for name in ("countdown", "n_queens", "simple_integration", "string_insertion"):
        assert score(name, {}, 5, 3, 0, f"open({str(mark)!r}, 'w').write('x')").value == 0
    assert not mark.exists()


def test_a_huge_answer_scores_0() -> None:
    assert score("coin_flip", {}, 5, 3, 0, "1e999999999").value == 0
    assert score("chain_sum", {}, 5, 3, 0, "1" * 30_000).value == 0


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_answer_gets_a_score(answer: str) -> None:
    for name in ("chain_sum", "countdown", "n_queens"):
        assert 0 <= score(name, {}, 5, 3, 0, answer).value <= 1


@settings(deadline=None)
@given(st.text(alphabet="0123456789+-*/() []'xsin,.", max_size=30))
def test_any_expression_like_answer_gets_a_score(answer: str) -> None:
    for name in ("countdown", "simple_integration", "string_insertion"):
        assert 0 <= score(name, {}, 5, 3, 0, answer).value <= 1
