"""The baseline of a role: from updates before, one for each role, and kept over a stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agenthub.trainers.credit import RoleBaseline
from tests.trainers.fakes import batch_of

ROLES = ("spy", "detective", "spy", "detective")


def test_a_reward_is_compared_with_what_its_role_had_before() -> None:
    batch = replace(batch_of([1.0, 0.0, 0.5, 0.2]), roles=ROLES)
    credit = RoleBaseline(decay=0.5)
    first = credit.advantage(batch)
    assert first[batch.action_mask].tolist() == batch.rewards[batch.trajectory_of_token][batch.action_mask].tolist()
    assert credit.advantage(batch).tolist() == first.tolist(), "asking moves nothing"
    credit.observe(batch)
    assert credit.metrics(batch) == {"role_baseline_detective": 0.05, "role_baseline_spy": 0.375}
    second = credit.advantage(batch)
    gone = (first - second)[batch.action_mask]
    expected = [0.375 if ROLES[n] == "spy" else 0.05 for n in batch.trajectory_of_token[batch.action_mask]]
    assert gone.tolist() == pytest.approx(expected)


def test_who_does_not_count_moves_no_baseline() -> None:
    batch = replace(batch_of([1.0, 0.0]), roles=("spy", "spy"))
    left = replace(batch, in_stats=batch.trajectory_of_sample != 1)
    credit = RoleBaseline(decay=0.0)
    credit.observe(left)
    assert credit.state_dict() == {"spy": 1.0}


def test_it_goes_on_from_its_state_and_two_share_none() -> None:
    batch = batch_of([1.0, 0.0])
    one, other = RoleBaseline(), RoleBaseline()
    one.observe(batch)
    assert other.state_dict() == {} and one.metrics(batch) == {"role_baseline_none": pytest.approx(0.05)}
    other.load_state_dict(one.state_dict())
    assert other.advantage(batch).tolist() == one.advantage(batch).tolist()


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_forgets_nothing_or_all_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        RoleBaseline(decay=decay)
