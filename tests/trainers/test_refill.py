"""Dynamic sampling: groups that the filter throws away are played anew, no more often than allowed, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agenthub.records import Trajectory
from agenthub.rollout import CollectStats, Play
from agenthub.trainers.batch import build_batch
from agenthub.trainers.gates import DapoDynamic
from agenthub.trainers.metrics import rollout_metrics
from agenthub.trainers.refill import Refill
from agenthub.trainers.shaping import SoftOverlong
from tests.trainers.fakes import ANSWER, CODE, trajectory

TASKS = [f"t{number}" for number in range(8)]


class Played:
    """Half of a group is right, but where its task is one that all solve or none does."""

    def __init__(self, easy: Sequence[str] = (), hard: Sequence[str] = ()) -> None:
        self.easy, self.hard = set(easy), set(hard)
        self.calls: list[list[Play]] = []
        self.seeds: list[int] = []
        self.stats = CollectStats()

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        self.calls.append(list(plays))
        self.seeds.append(seed)
        self.stats = CollectStats(tokens=sum(play.count for play in plays), turns=1)
        return [self._one(play, member) for play in plays for member in range(play.count)]

    def _one(self, play: Play, member: int) -> Trajectory:
        right = play.task in self.easy or (play.task not in self.hard and member % 2 == 0)
        one = trajectory((CODE, ANSWER), reward=float(right), group=play.group, member=member)
        return replace(one, task=f"{play.suite}/{play.task}")


def plays(*tasks: str) -> list[Play]:
    return [Play(suite="s", task=task, count=4, group=f"u1/{place}") for place, task in enumerate(tasks)]


def refill(inner: Played, rounds: int = 3, tasks: Sequence[str] = TASKS) -> Refill:
    return Refill(inner, filter=DapoDynamic(), shaping=[], tasks=tasks, rounds=rounds)


async def test_only_groups_that_would_be_thrown_away_are_played_anew_under_their_own_name() -> None:
    inner = Played(easy=["t0"], hard=["t2"])
    around = refill(inner)
    found = await around.collect(plays("t0", "t1", "t2"), seed=5)
    assert [(one.group, one.member) for one in found] == [(f"u1/{g}", m) for g in range(3) for m in range(4)]
    assert [play.group for play in inner.calls[1]] == ["u1/0", "u1/2"]
    assert len(set(inner.seeds)) == len(inner.seeds), "a second try is not sampled with the first one's seeds"
    kept = DapoDynamic().apply(build_batch(found)).keep_group
    assert all(kept.values()) and len(kept) == 3
    assert around.stats.tokens == 4 * sum(map(len, inner.calls)), "what was thrown away was paid for too"


async def test_what_was_thrown_away_is_counted_and_the_success_of_all_that_was_played_is_told() -> None:
    found = await refill(Played(easy=["t0"])).collect(plays("t0", "t1"), seed=5)
    row = rollout_metrics(found, build_batch(found), {})
    assert row["success"] == 0.5
    assert row["refilled"] == 1
    assert row["success_played"] == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    (told,) = [one.metadata["thrown_away"] for one in found if "thrown_away" in one.metadata]
    assert told[0]["task"] == "s/t0" and told[0]["success"] == 1.0
    assert "refilled" not in rollout_metrics(found[4:], build_batch(found[4:]), {})


async def test_it_ends_where_nothing_can_be_kept() -> None:
    inner = Played(hard=TASKS)
    found = await refill(inner, rounds=2).collect(plays("t0", "t1"), seed=5)
    assert [len(call) for call in inner.calls] == [2, 2, 2]
    assert len(found) == 8 and not any(DapoDynamic().apply(build_batch(found)).keep_group.values())


async def test_the_same_group_tries_the_same_tasks_again() -> None:
    first, again = Played(hard=TASKS), Played(hard=TASKS)
    await refill(first).collect(plays("t0", "t1"), seed=5)
    await refill(again).collect(plays("t1")[:1], seed=5)
    await refill(again).collect(plays("t0", "t1"), seed=5)
    assert first.calls == again.calls[-4:]
    assert all(
        a.task != b.task
        for one, two in zip(first.calls, first.calls[1:], strict=False)
        for a, b in zip(one, two, strict=True)
    )


async def test_one_task_alone_is_played_again_itself() -> None:
    inner = Played(hard=["t0"])
    await refill(inner, rounds=1, tasks=["t0"]).collect(plays("t0"), seed=5)
    assert [play.task for call in inner.calls for play in call] == ["t0", "t0"]


async def test_the_filter_sees_rewards_with_what_the_trainer_adds() -> None:
    inner = Played()
    shaping = [SoftOverlong(max_length=2, cache=1)]
    around = Refill(inner, filter=DapoDynamic(), shaping=shaping, tasks=TASKS, rounds=1)
    await around.collect(plays("t0"), seed=5)
    assert len(inner.calls) == 1


async def test_a_group_without_any_reward_is_not_played_anew() -> None:
    class Broken(Played):
        def _one(self, play: Play, member: int) -> Trajectory:
            from agenthub.records import Outcome

            one = super()._one(play, member)
            return replace(one, reward=None, outcome=Outcome.ENV_FAULT)

    inner = Broken()
    assert len(await refill(inner).collect(plays("t0"), seed=5)) == 4
    assert len(inner.calls) == 1
