"""Groups that are played ahead: how many, in which order they train, and what a killed run finds again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agenthub.errors import HostFault
from agenthub.records import Trajectory, ints
from agenthub.rollout import CollectStats, Play
from agenthub.trainers.experts.library import as_expert
from agenthub.trainers.flow import Flow
from agenthub.trainers.integrity import check_tokens
from agenthub.trainers.ledger import Ledger
from agenthub.trainers.samplers.uniform import Uniform
from tests.trainers.fakes import ANSWER, CODE, trajectory

TASKS = [f"task-{number}" for number in range(7)]


class Stage:
    """Groups end when they are told to."""

    def __init__(self) -> None:
        self.stats = CollectStats()
        self.live: dict[str, asyncio.Event] = {}
        self.begun = asyncio.Event()

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        for play in plays:
            self.live.setdefault(play.group, asyncio.Event())
        self.begun.set()
        for play in plays:
            await self.live[play.group].wait()
        return [
            trajectory([CODE, ANSWER], group=play.group, member=member, reward=float(member))
            for play in plays
            for member in range(play.count)
        ]

    async def end(self, *groups: str) -> None:
        """Let these groups end."""
        while not all(group in self.live for group in groups):
            self.begun.clear()
            await self.begun.wait()
        for group in groups:
            self.live[group].set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def flow_of(path: Path, stage: Stage, *, bound: int) -> Flow:
    sampler = Uniform().start(TASKS, 1)
    ledger = Ledger(path / "ledger.sqlite")
    return Flow(
        lambda: stage, sampler, ledger, suite="fake", groups=2, group_size=3, seed=0, bound=bound, serving=lambda: 9
    )


@pytest.mark.parametrize("bound", [1, 2, 3])
async def test_a_batch_starts_only_while_fewer_than_version_and_bound_and_one_have(tmp_path: Path, bound: int) -> None:
    stage = Stage()
    flow = flow_of(tmp_path, stage, bound=bound)
    flow.begin(0, 0)
    first = asyncio.create_task(flow.next(1))
    await stage.end("u1/0", "u1/1")
    await first
    assert flow.started == bound + 1
    flow.advance(1)
    assert flow.started == bound + 2
    await flow.close()


async def test_an_update_takes_the_groups_that_ended_first_whatever_their_batch(tmp_path: Path) -> None:
    stage = Stage()
    flow = flow_of(tmp_path, stage, bound=2)
    flow.begin(0, 0)
    update = asyncio.create_task(flow.next(1))
    await stage.end("u2/1")
    await stage.end("u1/0")
    assert [one.group for one in await update] == ["u2/1"] * 3 + ["u1/0"] * 3
    flow.advance(1)
    later = asyncio.create_task(flow.next(2))
    await stage.end("u3/0")
    await stage.end("u1/1")
    assert [one.group for one in await later] == ["u3/0"] * 3 + ["u1/1"] * 3
    await flow.close()


async def test_what_a_killed_run_had_started_is_played_and_what_had_ended_trains_in_the_same_updates(
    tmp_path: Path,
) -> None:
    stage = Stage()
    flow = flow_of(tmp_path, stage, bound=2)
    flow.begin(0, 0)
    update = asyncio.create_task(flow.next(1))
    await stage.end("u3/1")
    await stage.end("u1/0")
    taken = [one.group for one in await update]
    await stage.end("u2/0")
    await flow.close()
    # The checkpoint is from before the first update: nothing had been drawn, and update 1 is made again.
    again = Stage()
    resumed = flow_of(tmp_path, again, bound=2)
    resumed.begin(0, 0)
    assert resumed.started == 3
    assert [one.group for one in await resumed.next(1)] == taken
    resumed.advance(1)
    second = asyncio.create_task(resumed.next(2))
    await again.end("u1/1")
    assert [one.group for one in await second] == ["u2/0"] * 3 + ["u1/1"] * 3
    assert sorted(again.live) == ["u1/1", "u2/1", "u3/0", "u4/0", "u4/1"]
    await resumed.close()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.problems(2, 2) == []
    assert len(ledger.turns()) == 2 * 2 * 3 * 2
    ledger.close()


async def test_a_group_that_fails_stops_the_run(tmp_path: Path) -> None:
    class Failing(Stage):
        async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
            raise HostFault("the engine is gone")

    flow = flow_of(tmp_path, Failing(), bound=1)
    flow.begin(0, 0)
    with pytest.raises(HostFault, match="engine is gone"):
        await flow.next(1)
    await flow.close()


def test_a_turn_trains_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    group = [trajectory([CODE, ANSWER], group="u1/0", member=member) for member in range(2)]
    ledger.open_batch(1, ["a", "b"])
    ledger.finish("u1/0", group)
    with pytest.raises(HostFault, match="u1/0 ended twice"):
        ledger.finish("u1/0", group)
    back = ledger.take(1, 1)
    for one, other in zip(back, group, strict=True):
        for ours, theirs in zip(one.turns, other.turns, strict=True):
            assert ours.generation is not None and theirs.generation is not None
            assert np.array_equal(ours.generation.ids, theirs.generation.ids)
            assert ours.generation.logprobs.tobytes() == theirs.generation.logprobs.tobytes()
    with pytest.raises(HostFault, match="needs 1 groups, 0 wait"):
        ledger.take(2, 1)
    ledger.finish("u1/1", group)
    with pytest.raises(HostFault, match="trained already"):
        ledger.take(2, 1)
    assert ledger.ready() == 1
    assert ledger.problems(2, 1) == ["update 2 took 0 groups, not 1"]
    ledger.close()


def test_a_context_that_drifted_is_refused_with_its_first_token_and_both_texts() -> None:
    sound = trajectory([CODE, ANSWER])
    check_tokens(sound, version=0)
    # Its versions are of no weights at all, and so it comes in with every group that has an expert.
    check_tokens(as_expert(sound, "g", 9), version=0)
    with pytest.raises(HostFault, match="sampled by weights 3, 2 is the newest"):
        check_tokens(trajectory([CODE], version=3), version=2)
    second = sound.turns[1]
    assert second.generation is not None
    prompt = second.generation.prompt_ids.tolist()
    prompt[5] = 23 if prompt[5] != 23 else 22
    drifted = _with_prompt(sound, prompt)
    with pytest.raises(HostFault, match=r"turn 1: the context drifted at token 5, \d+ is 2[23] now: 'text of"):
        check_tokens(drifted, version=0, decode=lambda ids: f"text of {list(ids)}")
    with pytest.raises(HostFault, match="is missing now"):
        check_tokens(_with_prompt(sound, prompt[:5][:3]), version=0)


def _with_prompt(one: Trajectory, prompt: Sequence[int]) -> Trajectory:
    from dataclasses import replace

    last = one.turns[1]
    assert last.generation is not None
    changed = replace(last, generation=replace(last.generation, prompt_ids=ints(prompt)))
    return replace(one, turns=(one.turns[0], changed))
