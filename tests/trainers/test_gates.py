"""Filters by calls, groups, length and forks: who leaves, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agenthub.trainers.gates import THOR, AllCallsFailed, DapoDynamic, GroupGate, NoCall, Overlong
from agenthub.trainers.types import Batch, Reason
from tests.golden.batches import Row, flat


def left(batch: Batch, plugin: Any) -> tuple[list[bool], list[bool], dict[int, Reason]]:
    """(in the loss, in the statistics, reasons), by trajectory."""
    filtered = plugin.apply(batch)
    inside = [bool(filtered.in_loss[batch.trajectory_of_token == n].any()) for n in range(batch.trajectories)]
    return inside, filtered.in_stats.tolist(), dict(filtered.reasons)


def test_no_call_and_all_calls_failed_mask_or_drop() -> None:
    batch = flat([Row(texts=["\\boxed{1}"]), Row(failed=[0]), Row(mask=[1, 1], turn=[0, 1], failed=[0, 1])])
    broken = replace(batch, turns=(batch.turns[0], replace(batch.turns[1], calls=1, failed_calls=1), *batch.turns[2:]))
    for effect, stats in (("mask", [True] * 3), ("drop", [False, True, True])):
        assert left(broken, NoCall(effect=effect)) == ([False, True, True], stats, {0: Reason.NO_CALL})
    assert left(broken, AllCallsFailed()) == ([True, False, True], [True] * 3, {1: Reason.CALLS_FAILED})
    with pytest.raises(ValueError, match="expected one of drop, mask"):
        NoCall(effect="none")


def test_overlong_leaves_the_loss_and_stays_in_the_statistics_unless_it_is_dropped() -> None:
    batch = replace(flat([Row(), Row()]), truncated=np.array([True, False]))
    assert left(batch, Overlong()) == ([False, True], [True, True], {0: Reason.TRUNCATED})
    assert left(batch, Overlong(effect="drop"))[1] == [False, True]


def test_dapo_wants_groups_with_spread_and_says_when_more_should_be_played() -> None:
    rewards: dict[str, list[float]] = {"right": [1, 1], "wrong": [0, 0], "even": [0.5, 0.5], "mixed": [1, 0]}
    batch = flat([Row(reward=value, group=name) for name, row in rewards.items() for value in row])
    filtered = DapoDynamic(target_groups=2).apply(batch)
    assert dict(filtered.keep_group) == {"right": False, "wrong": False, "even": False, "mixed": True}
    assert DapoDynamic(target_groups=2).needs_more(filtered)
    assert not DapoDynamic(target_groups=1).needs_more(filtered)
    assert [filtered.reasons[s] for s in (0, 2, 4)] == [Reason.TOO_EASY, Reason.TOO_HARD, Reason.NO_SPREAD]


def test_the_group_gate_ignores_void_turns() -> None:
    batch = flat([Row(reward=r, texts=["hm"]) for r in (1, 0, 0, 0)])
    assert left(batch, GroupGate(acc_low=0.1, acc_high=0.9)) == ([True] * 4, [True] * 4, {})


def test_thor_drops_failed_calls_thin_groups_and_the_prefix_of_what_was_forked() -> None:
    rows = [Row(failed=[1], group="thin"), Row(failed=[0], group="thin"), Row(failed=[1], group="thin")]
    fork = Row(mask=[1, 1, 1], turn=[0, 0, 1], failed=[1, 0], group="thin", fork_turn=1, parent=0)
    filtered = THOR().apply(flat([*rows, fork]))
    assert filtered.in_loss.tolist() == [False, False, False, False, False, True]
    assert filtered.reasons == {
        0: Reason.EXECUTION_FAILED,
        1: Reason.TOO_FEW,
        2: Reason.EXECUTION_FAILED,
        3: Reason.PREFIX,
    }
    assert filtered.in_stats.tolist() == [False, True, False, True]
