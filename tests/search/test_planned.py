"""A planner and a generator in one episode: whose turn it is, what each sees, and whose tokens train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agenthub.client import Hub
from agenthub.errors import UserError
from agenthub.planned import PlannedCollector
from agenthub.policy import Request, Sampling
from agenthub.records import Stop
from agenthub.renderers import make_renderer
from agenthub.rollout import Play
from agenthub.suites.load import load_suite
from agenthub.suites.task import Suite
from agenthub.trainers.batch import samples_of
from tests.served import served
from tests.test_rollout import TextPolicy

YAML = """
schema: agenthub.suite/1
suite: {name: planned, version: "1"}
defaults:
  protocol: search_r1
  tools: [{uses: search, tool: search, config: {corpus: encyclopedia, corpus_config: {seed: 5, articles: 1000}}}]
  on_no_call: ON
  limits: {max_turns: 4, max_tokens: 32768}
  verifier: {checks: [{uses: search_utility, args: {alpha: 0.1}}]}
sources:
  - {kind: generator, uses: multihop, config: {corpus: {seed: 5, articles: 1000}, hops: [2]}, seed: 1, count: 4}
"""


def suite_of(folder: Path, on_no_call: str) -> tuple[Path, Suite]:
    path = folder / "planned.yaml"
    path.write_text(YAML.replace("ON", on_no_call))
    return path, load_suite(path)


def collector(hub: Hub, planner: TextPolicy, generator: TextPolicy) -> PlannedCollector:
    generator.name = "generator"
    renderers = [make_renderer("plain", it.tokenizer, "search_r1") for it in (planner, generator)]
    tokens = Sampling(max_tokens=400)
    return PlannedCollector(
        hub, planner, renderers[0], generator, renderers[1], sampling=tokens, generator_sampling=tokens
    )


async def test_the_planner_searches_the_generator_answers_and_only_the_planner_trains(tmp_path: Path) -> None:
    path, suite = suite_of(tmp_path, "ignore")
    task = suite.tasks[0]
    searches = task.solution[:-1]
    planner = TextPolicy(lambda turn, request: (*searches, "I know enough <answer> no </answer>")[turn])
    generator = TextPolicy(lambda turn, request: f"It is <answer> {task.target} </answer>")
    with served(path, tmp_path) as url:
        async with Hub(url) as hub:
            plays = [Play(suite="planned", task=task.id, count=2, group="g")]
            made = await collector(hub, planner, generator).collect(plays, seed=1)
    for trajectory in made:
        assert trajectory.stop is Stop.ANSWERED and trajectory.reward == pytest.approx(1 - 0.1 * len(searches))
        names = [turn.generation.policy for turn in trajectory.turns if turn.generation]
        assert names == ["policy"] * 3 + ["generator"]
        last = trajectory.turns[-1].generation
        assert last is not None
        prompt = generator.tokenizer.decode(last.prompt_ids.tolist())
        assert "Question: What is the name of" in prompt and prompt.count("outside text") == 4
        assert "I know enough" not in prompt, "the generator does not see what the planner thought"
        (sample,) = samples_of(trajectory, policies=["policy"])
        assert sample.policy == "policy"
        trained = np.concatenate([turn.generation.ids for turn in trajectory.turns[:3] if turn.generation])
        assert sample.ids[sample.action_mask.astype(bool)].tolist() == trained.tolist()
        assert {it.policy for it in samples_of(trajectory)} == {"policy", "generator"}


async def test_a_planner_that_never_stops_leaves_the_last_turn_to_the_generator(tmp_path: Path) -> None:
    path, suite = suite_of(tmp_path, "remind")
    planner = TextPolicy(lambda turn, request: "<search> again </search>")
    generator = TextPolicy(lambda turn, request: "no tags at all")
    with served(path, tmp_path) as url:
        async with Hub(url) as hub:
            plays = [Play(suite="planned", task=suite.tasks[1].id, count=1, group="g")]
            (made,) = await collector(hub, planner, generator).collect(plays, seed=1)
    assert len(made.turns) == 4 and made.stop is Stop.ANSWERED and made.reward == 0.0
    assert made.turns[-1].answer == "no tags at all"


async def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    path, suite = suite_of(tmp_path, "end")

    def ready(turn: int, request: Request) -> str:
        del turn, request
        return "ready"

    with served(path, tmp_path) as url:
        async with Hub(url) as hub:
            plays = [Play(suite="planned", task=suite.tasks[0].id, count=1, group="g")]
            with pytest.raises(UserError, match="on_no_call"):
                await collector(hub, TextPolicy(ready), TextPolicy(ready)).collect(plays, seed=1)
            with pytest.raises(UserError, match="different names"):
                twin = TextPolicy(ready)
                renderer = make_renderer("plain", twin.tokenizer, "search_r1")
                PlannedCollector(
                    hub, twin, renderer, twin, renderer, sampling=Sampling(), generator_sampling=Sampling()
                )
