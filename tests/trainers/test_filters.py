"""Filters, against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agenthub.records import Finish, Stop
from agenthub.trainers.batch import build_batch
from agenthub.trainers.filters import NoFilter, SimpleTIR, void_by_text, void_trajectories
from agenthub.trainers.types import Reason, TurnFacts
from tests.trainers.fakes import ANSWER, CODE, PROSE, batch_of, mixed_batch, trajectory


def facts(text: str) -> TurnFacts:
    return TurnFacts(
        text=text, calls=0, answered=False, parse_error=False, failed_calls=0, observed=False, finish=Finish.STOP
    )


@pytest.mark.parametrize(
    ("text", "void"),
    [
        ("```python\nprint(1)\n```", False),
        ("```py\nprint(1)\n```", False),
        ("before ```\nprint(1)\n``` after", False),
        ("```python\nraise ValueError()\n```", False),
        ("so \\boxed{3}", False),
        ("```python\nprint(1)", True),
        ("```python\nprint(1)```", True),
        ("```javascript\nfoo()\n```", True),
        ("boxed{3}", True),
        ("", True),
    ],
)
def test_the_published_predicate(text: str, void: bool) -> None:
    assert void_by_text(facts(text)) == void


def test_a_void_turn_masks_the_whole_trajectory_and_leaves_it_in_the_statistics() -> None:
    batch = build_batch([trajectory([CODE, PROSE], member=0), trajectory([CODE, ANSWER], member=1)])
    filtered = SimpleTIR().apply(batch)
    assert not filtered.in_loss[batch.trajectory_of_token == 0].any()
    assert filtered.in_loss[batch.trajectory_of_token == 1].sum() == 6
    assert filtered.in_stats.tolist() == [True, True]
    assert filtered.reasons == {0: Reason.VOID}


def test_masking_the_turn_alone_keeps_the_good_one() -> None:
    batch = build_batch([trajectory([CODE, PROSE])])
    filtered = SimpleTIR(effect="turn").apply(batch)
    assert filtered.in_loss[batch.turn_of_token == 0].sum() == 3
    assert not filtered.in_loss[batch.turn_of_token == 1].any()
    assert filtered.reasons == {0: Reason.VOID}


def test_without_an_effect_only_the_gate_is_left() -> None:
    batch = mixed_batch()
    filtered = SimpleTIR(effect="none", min_n=2).apply(batch)
    assert filtered.reasons == {6: Reason.TOO_FEW}
    assert filtered.in_loss[batch.trajectory_of_token == 1].any()


def test_void_trajectories_can_leave_the_statistics_and_truncated_ones_both() -> None:
    batch = mixed_batch()
    out = SimpleTIR(void_in_stats=False, truncated="drop").apply(batch)
    assert batch.with_filter(out).trajectory_in_stats.tolist() == [True, False, True, False, True, True, True]
    assert out.reasons == {1: Reason.VOID, 3: Reason.TRUNCATED}
    kept = SimpleTIR().apply(batch)
    assert kept.reasons == {1: Reason.VOID}
    assert kept.in_stats.all()


@pytest.mark.parametrize(
    ("rewards", "options", "reason"),
    [
        ([1, 0, 0, 0], {}, None),
        ([1, 0, 0], {"min_n": 4}, Reason.TOO_FEW),
        ([0, 0, 0, 0], {"std_min": 1e-3}, Reason.NO_SPREAD),
        ([1, 1, 1, 1], {"acc_high": 0.9}, Reason.TOO_EASY),
        ([1] * 9 + [0], {"acc_high": 0.85}, Reason.TOO_EASY),
        ([1] + [0] * 19, {"acc_low": 0.1}, Reason.TOO_HARD),
        ([1, 0], {"acc_low": 0.1, "acc_high": 0.9, "std_min": 1e-3, "min_n": 2}, None),
    ],
)
def test_the_group_gate(rewards: list[float], options: dict[str, Any], reason: Reason | None) -> None:
    batch = batch_of([float(reward) for reward in rewards])
    filtered = SimpleTIR(**options).apply(batch)
    assert filtered.keep_group == {"g": reason is None}
    assert bool(filtered.in_loss.any()) == (reason is None)
    assert set(filtered.reasons.values()) == ({reason} if reason else set())


def test_members_out_of_the_statistics_do_not_count_for_the_gate() -> None:
    rows = [trajectory([ANSWER], reward=float(m % 2), member=m) for m in range(3)]
    rows.append(trajectory([CODE], reward=0.0, member=3, stop=Stop.OUT_OF_TURNS))
    filtered = SimpleTIR(truncated="drop", min_n=4).apply(build_batch(rows))
    assert filtered.keep_group == {"g": False}
    assert sorted(filtered.reasons.values()) == sorted([Reason.TOO_FEW] * 3 + [Reason.TRUNCATED])


def test_a_trajectory_that_the_engine_gave_up_on_is_never_trained_on() -> None:
    batch = build_batch([trajectory([ANSWER], finish=Finish.ABORT), trajectory([ANSWER], member=1)])
    for plugin in (NoFilter(), SimpleTIR()):
        filtered = plugin.apply(batch)
        assert filtered.reasons == {0: Reason.ABORTED}
        assert filtered.in_stats.tolist() == [False, True]
        assert not filtered.in_loss[batch.trajectory_of_token == 0].any()


def test_void_by_facts_asks_for_neither_call_nor_answer() -> None:
    batch = mixed_batch()
    assert np.flatnonzero(void_trajectories(batch)).tolist() == [1]
    assert np.flatnonzero(void_trajectories(batch, "text")).tolist() == [1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"predicate": "vibes"}, "expected one of facts, text"),
        ({"effect": "group"}, "expected one of none, trajectory, turn"),
        ({"truncated": "mask"}, "expected one of drop, keep"),
        ({"acc_low": 0.9, "acc_high": 0.1}, "must rise"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SimpleTIR(**options)
