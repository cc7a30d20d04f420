"""avg@k, pass@k and their intervals."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.records import Outcome, frozen
from agenthub.trainers.evaluate import evaluate, pass_at_k, score, task_interval
from tests.trainers.fakes import ANSWER, Bandit, FakePolicy, trajectory


@given(n=st.integers(1, 8), c=st.integers(0, 8), k=st.integers(1, 8))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_solved_episode(n: int, c: int, k: int) -> None:
    if c > n or k > n:
        with pytest.raises(ValueError, match="pass@k needs"):
            pass_at_k(n, c, k)
        return
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_tasks_weigh_the_same_however_many_episodes_were_scored() -> None:
    played = [replace(trajectory([ANSWER], reward=r, member=m), task="s/a") for m, r in enumerate([1.0, 0.0, 0.0, 1.0])]
    played.append(replace(trajectory([ANSWER], reward=1.0), task="s/b"))
    broken = replace(
        trajectory([ANSWER], member=1), task="s/b", outcome=Outcome.ENV_FAULT, reward=None, rewards=frozen()
    )
    evaluation = score([*played, broken], k=4)
    assert evaluation.avg.mean == pytest.approx((0.5 + 1.0) / 2)
    assert evaluation.unscored == 1
    assert evaluation.pass_at[1].mean == pytest.approx(0.75)
    assert evaluation.pass_at[2].mean == pytest.approx(1 - 1 / 6)
    assert evaluation.pass_at[4].mean == 1.0
    assert evaluation.row()["tasks"] == 2


def test_nothing_scored_gives_no_estimate_but_the_whole_interval() -> None:
    evaluation = score([], k=4)
    assert (evaluation.avg.mean, evaluation.avg.low, evaluation.avg.high) == (0.0, 0.0, 1.0)
    assert evaluation.pass_at == {}


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        chances = rng.beta(2, 1, 60)
        interval = task_interval((rng.binomial(8, chances) / 8).tolist(), seed=trial)
        covered += interval.low <= 2 / 3 <= interval.high
    assert 180 <= covered <= 200


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_tasks_still_leave_doubt(value: float) -> None:
    interval = task_interval([value] * 100)
    assert interval.mean == value
    assert 0.03 < interval.high - interval.low < 0.05
    assert interval.low <= value <= interval.high


async def test_an_evaluation_plays_every_task_in_bounded_parts() -> None:
    bandit = Bandit(FakePolicy())
    evaluation, played = await evaluate(bandit, "fake", [f"t{n}" for n in range(9)], k=64, seed=0)
    assert bandit.calls == 5
    assert len(played) == 9 * 64
    assert set(evaluation.solved) == {f"fake/t{n}" for n in range(9)}
    assert sorted(evaluation.pass_at) == [1, 2, 4, 8, 16, 32, 64]
