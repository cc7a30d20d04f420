"""Samplers: what they learn from a batch, and what they draw then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agenthub.trainers.batch import build_batch
from agenthub.trainers.samplers import Dump, FifoReplay, HardFocus, Limr, Staged
from agenthub.trainers.types import Batch
from tests.trainers.fakes import ANSWER, trajectory

TASKS = ("easy-0", "easy-1", "hard-0", "hard-1")


def batch(outcomes: dict[str, list[float]], advantage: float = 1.0) -> Batch:
    """One group a task, with these outcomes."""
    rows = [
        replace(trajectory([ANSWER], reward=reward, group=task, member=member), task=f"suite/{task}")
        for task, rewards in outcomes.items()
        for member, reward in enumerate(rewards)
    ]
    made = build_batch(rows)
    return replace(made, advantages=np.where(made.action_mask, -advantage, 0.0))


def test_dump_counts_trajectories_and_remembers_the_last_window_of_each_domain() -> None:
    sampler = Dump(window=3).start(TASKS, 0)
    sampler.observe(batch({"easy-0": [1.0, 0.0]}, advantage=0.5))
    sampler.observe(batch({"easy-1": [1.0, 0.0]}, advantage=1.5))
    state = sampler.state_dict()
    assert state["counts"] == [4, 0]
    assert state["recent"] == [[0.5, 1.5, 1.5], []]
    # ln 5 = 1.609: the unseen domain's bonus is 1.794, the other has 1.167 + 0.802.
    shares = Dump(window=3).shares([3.5 / 3, 0.0], [4, 0])
    assert shares == pytest.approx([1 / (1 + np.exp((1.7941 - 1.9690) / 0.1)), 0.148], abs=2e-3)


def test_dump_draws_mostly_from_where_something_is_learned() -> None:
    sampler = Dump().start(TASKS, 0)
    sampler.observe(batch({"easy-0": [1.0] * 50, "hard-0": [1.0] * 50}, advantage=0.0))
    sampler.observe(batch({"hard-1": [1.0] * 50}, advantage=2.0))
    assert sum("hard" in task for task in sampler.next(50)) > 45


def test_limr_keeps_what_follows_the_mean_curve_once_it_has_been_measured() -> None:
    sampler = Limr(epochs=2, theta=0.6).start(TASKS, 0)
    sampler.observe(batch({"easy-0": [0.0], "easy-1": [0.0], "hard-0": [0.0], "hard-1": [1.0]}))
    assert sorted(sampler.next(4)) == sorted(TASKS)
    sampler.observe(batch({"easy-0": [1.0], "easy-1": [1.0], "hard-0": [0.0], "hard-1": [0.0]}))
    # Means 0.25 and 0.5: room 0.8125; off by 0.0625 + 0.25 (twice), the same for hard-0, 0.5625 + 0.25 for hard-1.
    assert Limr().scores([[0, 1], [0, 1], [0, 0], [1, 0]]) == pytest.approx([0.615385, 0.615385, 0.615385, 0.0])
    assert set(sampler.next(9)) == {"easy-0", "easy-1", "hard-0"}


def test_the_hardest_share_is_played_after_everything_was_seen_once() -> None:
    sampler = HardFocus(visits=1, share=0.5).start(TASKS, 0)
    sampler.observe(batch({"easy-0": [1.0], "easy-1": [0.2]}))
    assert sorted(sampler.next(4)) == sorted(TASKS)
    sampler.observe(batch({"hard-0": [0.4], "hard-1": [0.0]}))
    assert set(sampler.next(6)) == {"easy-1", "hard-1"}


def test_stages_follow_each_other_and_the_last_one_stays() -> None:
    sampler = Staged(stages=2, draws=3).start(TASKS, 0)
    drawn = sampler.next(9)
    assert set(drawn[:3]) <= {"easy-0", "easy-1"}
    assert set(drawn[3:]) == {"hard-0", "hard-1"}


def test_a_buffer_replays_whole_groups_of_earlier_rounds_and_forgets_the_oldest() -> None:
    sampler = FifoReplay(capacity=2, groups=9).start(TASKS, 0)
    seen = []
    for number in range(4):
        fresh = [trajectory([ANSWER], reward=1.0, group=f"u{number}", member=member) for member in range(2)]
        seen.append([one.group for one in sampler.replay(fresh)])
    assert seen == [[], ["u0", "u0"], ["u0", "u0", "u1", "u1"], ["u1", "u1", "u2", "u2"]]


@pytest.mark.parametrize(
    ("make", "options"),
    [(Dump, {"tau": 0.0}), (Dump, {"domain": "x"}), (FifoReplay, {"capacity": 0}), (Staged, {"stages": 0})],
)
def test_settings_that_make_no_sense_are_refused(make: type, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is off|no group|must be"):
        make(**options)
