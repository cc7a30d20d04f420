"""Canaries are played among the groups, never train, and stop the run as soon as one is accepted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agenthub.errors import UserError
from agenthub.records import Generation, Trajectory, frozen
from agenthub.rollout import Play
from agenthub.trainers.canaries import CANARIES, Canaries
from agenthub.trainers.config import CanariesConfig, Recipe, load_recipe
from agenthub.trainers.folder import RunFolder
from agenthub.trainers.learner import Learner
from agenthub.trainers.loop import Parts, Trainer
from agenthub.trainers.sync.embedded import EmbeddedSync
from tests.trainers.fakes import Bandit, FakePolicy, Silent, tiny_model

TASKS = [f"task-{number}" for number in range(5)]
FALSE = ["f0", "f1", "f2"]


class Judged(Bandit):
    """A bandit whose judge takes a canary's first episode after `holds` others, and none before."""

    def __init__(self, policy: FakePolicy, holds: int) -> None:
        super().__init__(policy)
        self.left = holds
        self.canaries = 0

    def _trajectory(self, play: Play, member: int, generation: Generation) -> Trajectory:
        made = super()._trajectory(play, member, generation)
        if play.suite != "false":
            return made
        assert play.task in FALSE and play.group.startswith("canary/")
        self.canaries += 1
        self.left -= 1
        reward = 1.0 if self.left == -1 else 0.0
        (turn,) = made.turns
        rewards = frozen({"outcome": reward})
        return replace(made, turns=(replace(turn, rewards=rewards),), rewards=rewards, reward=reward)


def recipe(share: float = 0.5) -> Recipe:
    return Recipe.model_validate(
        {
            "format": "agenthub.recipe/1",
            "name": "bandit",
            "suite": "fake",
            "filter": {"uses": "none"},
            "credit": {"uses": "grpo"},
            "loss": {"uses": "ppo"},
            "rollout": {"groups": 4, "group_size": 6},
            "updates": 5,
            "eval": None,
            "canaries": {"suite": "false", "share": share, "episodes": 2},
        }
    )


async def train(path: Path, judged: Judged, used: Recipe, tasks: Sequence[str] = FALSE) -> Silent:
    folder, reporter = RunFolder.create(path, used), Silent()
    assert used.canaries is not None
    watched = Canaries(judged, used.canaries, tasks, path / CANARIES)
    parts = Parts(
        collector=lambda: watched,
        evaluator=None,
        held_out=(),
        sampler=used.sampler.make().start(TASKS, used.seed),
        filter=used.filter.make(),
        credit=used.credit.make(),
        learner=Learner(tiny_model(), used.loss.make(), used.optim),
        sync=EmbeddedSync(judged.policy, bound=used.sync_bound),
    )
    try:
        await Trainer(parts, folder, reporter).run()
    finally:
        folder.close()
    return reporter


async def test_one_accept_stops_the_run_and_names_the_canary_and_the_file(tmp_path: Path) -> None:
    judged = Judged(FakePolicy(), holds=7)
    with pytest.raises(UserError, match=r"canary false/f\d was accepted.*canaries\.jsonl"):
        await train(tmp_path / "run", judged, recipe())
    rows = [json.loads(line) for line in (tmp_path / "run" / CANARIES).read_text().splitlines()]
    assert rows[-1]["reward"] == 1.0 and all(row["reward"] == 0.0 for row in rows[:-1])
    done = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(done) < 5


async def test_a_run_whose_canaries_all_fail_goes_on_to_its_end_and_trains_on_none_of_them(tmp_path: Path) -> None:
    judged = Judged(FakePolicy(), holds=10_000)
    reporter = await train(tmp_path / "run", judged, recipe())
    plain = Judged(FakePolicy(), holds=10_000)
    without = await train(tmp_path / "plain", plain, recipe(share=1e-9))
    assert judged.canaries == len((tmp_path / "run" / CANARIES).read_text().splitlines()) >= 4
    assert plain.canaries == 0 and not (tmp_path / "plain" / CANARIES).exists()
    assert [row["update"] for row in reporter.rows] == [1, 2, 3, 4, 5]
    for key in ("loss", "success", "kept"):
        assert [row[key] for row in reporter.rows] == [row[key] for row in without.rows]
    text = (tmp_path / "run" / "trajectories.jsonl").read_text()
    assert "false/" not in text and len(text.splitlines()) == 5 * 24


def test_the_recipe_that_trains_on_lean_has_canaries() -> None:
    made = load_recipe("lean")
    assert made.canaries == CanariesConfig(suite="lean_false", split="canary", share=0.05, episodes=2)
    assert made.suite == "lean_core" and made.eval is None
