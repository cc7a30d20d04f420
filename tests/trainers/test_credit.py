"""Advantages, against numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.trainers.batch import build_batch
from agenthub.trainers.controls import shuffle_rewards
from agenthub.trainers.credit import GRPO, MTGRPO
from agenthub.trainers.types import Batch, Doubles
from tests.trainers.fakes import ANSWER, CODE, PROSE, batch_of, mixed_batch, trajectory


def by_trajectory(batch: Batch, advantage: Doubles) -> list[float]:
    return [
        float(advantage[(batch.trajectory_of_token == n) & batch.action_mask][0]) for n in range(batch.trajectories)
    ]


def test_grpo_divides_by_the_unbiased_deviation() -> None:
    batch = batch_of([1.0, 0.0, 0.0, 1.0])
    # mean 0.5, squared deviations 4 * 0.25, divided by 3: std 0.577350
    assert by_trajectory(batch, GRPO().advantage(batch)) == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024])
    population = GRPO(ddof=0, eps=1e-9).advantage(batch)
    assert by_trajectory(batch, population) == pytest.approx([1.0, -1.0, -1.0, 1.0])


def test_groups_are_centred_apart_and_a_group_of_one_gets_nothing() -> None:
    rows = [trajectory([ANSWER], reward=r, group="a", member=m) for m, r in enumerate([1.0, 3.0, 2.0])]
    batch = build_batch([*rows, trajectory([ANSWER], reward=5.0, group="b")])
    assert by_trajectory(batch, GRPO().advantage(batch)) == pytest.approx([-0.999999, 0.999999, 0.0, 0.0], abs=1e-6)


def test_the_turn_reward_counts_up_to_the_first_tool_result() -> None:
    rows = [
        trajectory([CODE, ANSWER], reward=outcome, turn_rewards=[turn], member=m)
        for m, (outcome, turn) in enumerate([(1.5, 0.5), (0.5, 0.5), (0.0, 0.0), (0.0, 0.0)])
    ]
    batch = build_batch(rows)
    advantage = MTGRPO().advantage(batch)
    first = [float(advantage[(batch.turn_of_token == 2 * n) & batch.action_mask][0]) for n in range(4)]
    second = [float(advantage[(batch.turn_of_token == 2 * n + 1) & batch.action_mask][0]) for n in range(4)]
    # outcomes: mean 0.5, std 0.707107; turns: mean 0.25, std 0.288675; eps 1e-4
    assert first == pytest.approx([2.279739, 0.865726, -1.572732, -1.572732], abs=1e-5)
    assert second == pytest.approx([1.414014, 0.0, -0.707007, -0.707007], abs=1e-5)


def test_without_a_tool_result_every_turn_has_the_combined_advantage() -> None:
    batch = build_batch(
        [
            trajectory([PROSE, PROSE, CODE, CODE], reward=1.0, turn_rewards=[0.0, 0.0, 0.5], member=0),
            trajectory([PROSE, ANSWER], reward=0.0, member=1),
        ]
    )
    advantage = MTGRPO(eps=1e-9).advantage(batch)
    per_turn = [float(advantage[(batch.turn_of_token == k) & batch.action_mask][0]) for k in range(6)]
    half = 2**-0.5
    assert per_turn == pytest.approx([2 * half] * 3 + [half] + [-2 * half] * 2)


@given(reward=st.floats(-1e3, 1e3), size=st.integers(1, 9))
def test_equal_rewards_give_exactly_nothing(reward: float, size: int) -> None:
    batch = replace(batch_of([0.0] * size), rewards=np.full(size, reward), outcomes=np.full(size, reward))
    assert not GRPO().advantage(batch).any()
    assert not MTGRPO().advantage(batch).any()


def test_eps_must_be_positive() -> None:
    with pytest.raises(ValueError, match="eps is 0"):
        GRPO(eps=0.0)


@given(seed=st.integers(0, 1000))
def test_shuffled_rewards_stay_in_their_group_with_their_turn_components(seed: int) -> None:
    batch = mixed_batch()
    got = shuffle_rewards(batch, seed)
    totals = np.bincount(got.trajectory_of_turn, got.turn_rewards)
    was = np.bincount(batch.trajectory_of_turn, batch.turn_rewards)
    for g in range(len(batch.groups)):
        members = batch.group_of_trajectory == g
        rows = sorted(zip(got.rewards[members], got.outcomes[members], totals[members], strict=True))
        assert rows == sorted(zip(batch.rewards[members], batch.outcomes[members], was[members], strict=True))
    assert np.allclose(got.rewards, got.outcomes + totals)
