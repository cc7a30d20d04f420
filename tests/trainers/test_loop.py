"""The loop on a bandit: it learns, it stops cleanly, and a resumed run equals one that was never interrupted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agenthub.errors import HostFault, UserError
from agenthub.trainers.config import Recipe
from agenthub.trainers.folder import RunFolder
from agenthub.trainers.learner import Learner
from agenthub.trainers.loop import Parts, Trainer
from agenthub.trainers.metrics import without_times
from agenthub.trainers.sync.embedded import EmbeddedSync
from tests.trainers.fakes import Bandit, FakePolicy, Silent, tiny_model

TASKS = [f"task-{number}" for number in range(5)]
Before = Callable[[int], Awaitable[None]]


def recipe(**changes: Any) -> Recipe:
    base: dict[str, Any] = {
        "format": "agenthub.recipe/1",
        "name": "bandit",
        "suite": "fake",
        "filter": {"uses": "simpletir"},
        "credit": {"uses": "grpo"},
        "loss": {"uses": "ppo"},
        "rollout": {"groups": 4, "group_size": 6},
        "optim": {"lr": 0.02},
        "updates": 6,
        "checkpoint_every": 2,
        "eval": {"every": 3, "k": 4, "tasks": 5},
        "seed": 3,
    }
    return Recipe.model_validate(base | changes)


async def train(
    folder: RunFolder, before: Before | None = None, reporter: Silent | None = None, policy: FakePolicy | None = None
) -> Silent:
    policy, reporter, used = policy or FakePolicy(), reporter or Silent(), folder.recipe
    bandit = Bandit(policy, before)
    parts = Parts(
        collector=lambda: bandit,
        evaluator=Bandit(policy),
        held_out=TASKS,
        sampler=used.sampler.make().start(TASKS, used.seed),
        filter=used.filter.make(),
        credit=used.credit.make(),
        learner=Learner(tiny_model(), used.loss.make(), used.optim),
        sync=EmbeddedSync(policy, bound=used.sync_bound),
    )
    try:
        await Trainer(parts, folder, reporter).run()
    finally:
        folder.close()
    return reporter


def lines(path: Path) -> list[dict[str, Any]]:
    return [without_times(json.loads(line)) for line in path.read_text().splitlines()]


async def test_it_learns_the_bandit_and_writes_everything(tmp_path: Path) -> None:
    reporter = await train(RunFolder.create(tmp_path / "run", recipe(updates=12)))
    rows = [row for row in lines(tmp_path / "run" / "metrics.jsonl") if "eval" not in row]
    assert [row["update"] for row in rows] == list(range(1, 13))
    assert reporter.evaluations[-1][1] > reporter.evaluations[0][1] + 0.25
    assert rows[0]["kept"] + rows[0]["dropped"].get("void", 0) == 24
    assert all(row["parity_error"] < 1e-4 and row["weight_version"] == row["update"] for row in rows)
    assert len((tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()) == 12 * 24
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.pt")) == [
        "update-000010.pt",
        "update-000012.pt",
    ]


@pytest.mark.parametrize("call", [1, 4, 6])
async def test_a_run_interrupted_in_its_rollout_and_resumed_equals_an_uninterrupted_one(
    tmp_path: Path, call: int
) -> None:
    await train(RunFolder.create(tmp_path / "whole", recipe()))

    async def interrupt(number: int) -> None:
        if number == call:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await train(RunFolder.create(tmp_path / "cut", recipe()), interrupt)
    await train(RunFolder.reopen(tmp_path / "cut"))
    for name in ("metrics.jsonl", "trajectories.jsonl"):
        assert lines(tmp_path / "cut" / name) == lines(tmp_path / "whole" / name)


async def test_a_run_that_died_without_a_word_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    await train(RunFolder.create(tmp_path / "whole", recipe()))

    async def die(number: int) -> None:
        if number == 6:
            raise HostFault("the engine is gone")

    with pytest.raises(HostFault):
        await train(RunFolder.create(tmp_path / "cut", recipe()), die)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"update": 6, "half a li')
    reporter = await train(RunFolder.reopen(tmp_path / "cut"))
    assert reporter.notes == ["goes on after update 4"]
    for name in ("metrics.jsonl", "trajectories.jsonl"):
        assert lines(tmp_path / "cut" / name) == lines(tmp_path / "whole" / name)


async def test_a_stop_during_the_update_leaves_the_last_checkpoint_in_charge(tmp_path: Path) -> None:
    await train(RunFolder.create(tmp_path / "whole", recipe()))
    running: list[asyncio.Task[Any]] = []

    async def stop_soon(number: int) -> None:
        if number == 4:
            # The collector returns at once, so the cancellation arrives while the learner is in its thread.
            asyncio.get_running_loop().call_later(0.005, running[0].cancel)

    running.append(asyncio.create_task(train(RunFolder.create(tmp_path / "cut", recipe()), stop_soon)))
    with pytest.raises(asyncio.CancelledError):
        await running[0]
    await train(RunFolder.reopen(tmp_path / "cut"))
    assert lines(tmp_path / "cut" / "metrics.jsonl") == lines(tmp_path / "whole" / "metrics.jsonl")


async def test_a_finished_run_goes_on_when_it_is_given_more_updates(tmp_path: Path) -> None:
    await train(RunFolder.create(tmp_path / "run", recipe(updates=2)))
    await train(RunFolder.reopen(tmp_path / "run", ["updates=4"]))
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["update"] for row in rows if "eval" not in row] == [1, 2, 3, 4]


async def test_a_policy_that_reports_other_probabilities_stops_the_run(tmp_path: Path) -> None:
    policy = FakePolicy()
    policy.lie = 0.01
    with pytest.raises(HostFault, match="nats off"):
        await train(RunFolder.create(tmp_path / "run", recipe()), policy=policy)


def test_a_folder_is_not_overwritten_nor_shared_nor_resumed_as_another_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        RunFolder.reopen(tmp_path / "none")
    folder = RunFolder.create(tmp_path / "run", recipe())
    with pytest.raises(UserError, match="in use"):
        RunFolder.reopen(tmp_path / "run")
    folder.close()
    with pytest.raises(UserError, match="holds a run already"):
        RunFolder.create(tmp_path / "run", recipe())
    with pytest.raises(UserError, match="may change only"):
        RunFolder.reopen(tmp_path / "run", ["optim.lr=1"])
    again = RunFolder.reopen(tmp_path / "run")
    assert again.recipe == recipe()
    with pytest.raises(UserError, match="has 0 bytes"):
        again.cut({"metrics.jsonl": 10})
    again.close()


def test_replacing_a_run_drops_the_checkpoints_that_several_processes_wrote(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", recipe()).close()
    shards = tmp_path / "run" / "checkpoints" / "update-000002.shards"
    shards.mkdir(parents=True)
    (shards / "__0_0.distcp").write_bytes(b"weights")
    RunFolder.create(tmp_path / "run", recipe(), replace=True).close()
    assert not any(shards.parent.iterdir())


def test_only_a_run_that_wrote_nothing_can_be_taken_back(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", recipe())
    folder.metrics({"update": 0})
    folder.take_back()
    folder.close()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"update":0}\n'
    folder = RunFolder.create(tmp_path / "run", recipe(), replace=True)
    folder.take_back()
    folder.close()
    RunFolder.create(tmp_path / "run", recipe()).close()
