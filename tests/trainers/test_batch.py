"""From trajectories to flat tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.errors import UserError
from agenthub.records import Outcome, ints
from agenthub.trainers.batch import build_batch, samples_of, solved
from tests.trainers.fakes import ANSWER, CODE, mixed_batch, trajectory, turn


def test_prompts_that_extend_each_other_are_one_sample_with_masked_observations() -> None:
    played = replace(
        trajectory([CODE, ANSWER]),
        turns=(
            turn(0, CODE, prompt=[1, 2], ids=[3, 4], logprobs=[-0.5, -0.25], version=7),
            turn(1, ANSWER, prompt=[1, 2, 3, 4, 9, 9], ids=[5], logprobs=[-0.125], version=8),
        ),
    )
    (sample,) = samples_of(played)
    assert sample.ids.tolist() == [1, 2, 3, 4, 9, 9, 5]
    assert sample.action_mask.tolist() == [False, False, True, True, False, False, True]
    assert sample.turn_of_token.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert sample.logprobs.tolist() == [0, 0, -0.5, -0.25, 0, 0, -0.125]
    assert sample.versions.tolist() == [-1, -1, 7, 7, -1, -1, 8]


def test_a_context_that_does_not_extend_the_last_one_opens_the_next_sample() -> None:
    played = replace(
        trajectory([CODE, CODE, ANSWER]),
        turns=(
            turn(0, CODE, prompt=[1, 2], ids=[3, 4]),
            turn(1, CODE, prompt=[1, 2, 9], ids=[5]),
            turn(2, ANSWER, prompt=[1, 2, 9, 5, 8], ids=[6]),
        ),
    )
    first, second = samples_of(played)
    assert first.ids.tolist() == [1, 2, 3, 4]
    assert second.ids.tolist() == [1, 2, 9, 5, 8, 6]
    assert second.turn_of_token.tolist() == [1, 1, 1, 1, 2, 2]
    batch = build_batch([played])
    assert batch.trajectory_of_sample.tolist() == [0, 0]
    assert batch.turn_of_token.max() == 2


def test_turns_of_two_policies_are_runs_of_their_own_and_only_the_named_one_trains() -> None:
    played = replace(
        trajectory([CODE, CODE, ANSWER]),
        turns=(
            turn(0, CODE, prompt=[1], ids=[2], policy="planner"),
            turn(1, CODE, prompt=[7], ids=[8], policy="writer"),
            turn(2, ANSWER, prompt=[1, 2, 3], ids=[4], policy="planner"),
        ),
    )
    assert [sample.policy for sample in samples_of(played)] == ["planner", "writer"]
    (planner,) = samples_of(played, policies={"planner"})
    assert planner.ids.tolist() == [1, 2, 3, 4]
    assert build_batch([played], policies={"planner"}).turns[1].calls == 1


def test_a_turn_without_tokens_an_unscored_trajectory_and_an_empty_list_are_refused() -> None:
    bare = trajectory([CODE])
    with pytest.raises(UserError, match="turn 0 has no generation"):
        samples_of(replace(bare, turns=(replace(bare.turns[0], generation=None),)))
    with pytest.raises(UserError, match="empty prompt"):
        samples_of(replace(bare, turns=(turn(0, CODE, prompt=[], ids=[1]),)))
    with pytest.raises(UserError, match="carries no reward"):
        build_batch([replace(bare, outcome=Outcome.ENV_FAULT, reward=None)])
    with pytest.raises(UserError, match="no trajectory"):
        build_batch([])


def test_a_turn_that_sampled_nothing_keeps_its_prompt_and_has_no_action_token() -> None:
    played = replace(trajectory([CODE]), turns=(turn(0, "", prompt=[1, 2], ids=[]),))
    batch = build_batch([played])
    assert not batch.action_mask.any()
    assert batch.tokens == 2


def test_solved_means_the_full_outcome() -> None:
    assert solved(trajectory([ANSWER], reward=1.0))
    assert not solved(trajectory([ANSWER], reward=0.5, turn_rewards=[0.5]))


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(7)), keep=st.integers(min_value=1, max_value=7))
def test_selecting_trajectories_keeps_each_ones_tokens_and_facts(order: list[int], keep: int) -> None:
    batch = mixed_batch()
    chosen = ints(order[:keep])
    part = batch.select(chosen)
    assert part.trajectories == keep
    for place, n in enumerate(chosen.tolist()):
        mine, theirs = part.trajectory_of_token == place, batch.trajectory_of_token == n
        assert np.array_equal(part.ids[mine], batch.ids[theirs])
        assert np.array_equal(part.action_mask[mine], batch.action_mask[theirs])
        assert part.rewards[place] == batch.rewards[n]
        assert part.groups[part.group_of_trajectory[place]] == batch.groups[batch.group_of_trajectory[n]]
        texts = [part.turns[k].text for k in np.flatnonzero(part.trajectory_of_turn == place)]
        assert texts == [batch.turns[k].text for k in np.flatnonzero(batch.trajectory_of_turn == n)]
    assert (np.diff(part.sample_of_token) >= 0).all()
    assert (part.trajectory_of_turn[part.turn_of_token] == part.trajectory_of_token).all()
