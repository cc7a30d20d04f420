"""Every recipe that ships, for three updates on a game of two turns: it steps, its own mechanism fires, and it is not
plain GRPO under another name."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from functools import cache

import pytest
import torch

from agenthub.trainers.config import RECIPES, load_recipe
from agenthub.trainers.plugins import Remembers
from tests.trainers.games import Run

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml") if load_recipe(path.stem).strategy.uses == "fixed")
"""Those with a rollout strategy are in `test_strategies`."""
LIKE_GRPO = {"grpo"}
AGREED = {"tis", "mis", "icepop", "rejection", "opsm"}
"""Corrections: engine and trainer are one here, so that they must leave everything as it is."""
FIRED: dict[str, Callable[[Run], bool]] = {
    "ahpo": lambda run: 0 < run.metrics[0]["expert_tokens"] <= 8,
    "chord": lambda run: run.metrics[-1]["expert_tokens"] > 0 and run.metrics[-1]["mu"] > 0.0,
    "sft": lambda run: run.metrics[-1]["expert_tokens"] > 0,
    "stepfun": lambda run: [row["imitates"] for row in run.metrics] == [0.0, 1.0, 1.0] and run.seen["experts"] > 0,
    "bapo": lambda run: any(row["clip_high"] > 1.2 for row in run.metrics),
    "craft_gui": lambda run: set(run.tasks[:4]) != set(run.tasks[4:8]),
    "limr": lambda run: len(set(run.tasks[4:])) < 4,
    "drive": lambda run: len(set(run.tasks[4:])) == 1,
    "dump": lambda run: sorted(run.tasks) != sorted(3 * run.tasks[:4]),
    "gigpo": lambda run: run.seen["advantages"] > 8,
    "chi2": lambda run: run.metrics[-1]["chi2_ref"] != 0.0,
    "flow_grpo": lambda run: run.metrics[-1]["kl_ref"] > 0.0,
    "kl": lambda run: run.metrics[-1]["kl_ref"] > 0.0,
    "nft": lambda run: 0.0 < run.metrics[-1]["group_rate"] < 1.0,
    "ppo": lambda run: run.metrics[-1]["value_error"] < run.metrics[0]["value_error"],
    "r2vpo": lambda run: run.metrics[-1]["lam"] != run.metrics[0]["lam"],
    "remix": lambda run: run.seen["earlier"] > 0,
    "reval": lambda run: run.seen["earlier"] > 0 and run.metrics[-1]["bellman_residual"] > 0.0,
    "sapo": lambda run: run.metrics[-1]["gate_weight"] != 1.0,
    "all_calls_failed": lambda run: run.seen["reasons"] > 0,
    "no_call": lambda run: run.seen["reasons"] > 0,
    "overlong": lambda run: run.seen["reasons"] > 0,
    "rlcr": lambda run: run.seen["advantages"] > 4,
    "simpletir": lambda run: run.seen["reasons"] > 0,
    "vision_zero": lambda run: run.metrics[-1]["role_baseline_spy"] != run.metrics[-1]["role_baseline_detective"],
}


SMALL = {
    "craft_gui": ["sampler.args.draws=4"],
    "limr": ["sampler.args.epochs=1"],
    "stepfun": ["loss.args.rl=1", "loss.args.sft=2"],
}
"""A game of four tasks and three updates has its mechanisms within reach."""


@cache
def trained(name: str, lie: float = 0.0) -> Run:
    torch.set_num_threads(1)
    run = Run(load_recipe(name, SMALL.get(name)), lie=lie)
    for number in range(1, 4):
        asyncio.run(run.update(number))
    return run


@pytest.mark.parametrize("name", NAMES)
def test_three_updates_move_finite_weights_by_its_own_mechanism(name: str) -> None:
    run = trained(name)
    assert run.seen["steps"] > 0
    assert torch.isfinite(run.weights()).all()
    moved = not torch.allclose(run.weights(), trained("grpo").weights(), atol=1e-5)
    assert moved == (name not in LIKE_GRPO | AGREED), f"{name} moves as plain GRPO does"
    if name in FIRED:
        assert FIRED[name](run), (run.metrics, run.seen)


@pytest.mark.parametrize("name", sorted(AGREED))
def test_a_correction_acts_once_engine_and_trainer_differ(name: str) -> None:
    run = trained(name, lie=-1.5)
    assert run.seen["weighed"] + run.seen["tokens_dropped"] > 0
    assert not torch.allclose(run.weights(), trained("grpo", lie=-1.5).weights(), atol=1e-5)


def test_the_same_recipe_gives_the_same_bits() -> None:
    first = trained("ppo").weights()
    trained.cache_clear()
    assert torch.equal(first, trained("ppo").weights())


@pytest.mark.parametrize("name", ["dump", "ppo", "r2vpo", "remix", "vision_zero"])
def test_what_has_a_state_goes_on_from_it_as_if_it_had_not_stopped(name: str) -> None:
    half, resumed = Run(load_recipe(name)), Run(load_recipe(name))
    asyncio.run(half.update(1))
    state = copy.deepcopy(half.learner.state_dict()), json.loads(json.dumps(half.sampler.state_dict()))
    resumed.learner.load_state_dict(state[0])
    resumed.sampler.load_state_dict(state[1])
    if isinstance(half.credit, Remembers) and isinstance(resumed.credit, Remembers):
        resumed.credit.load_state_dict(json.loads(json.dumps(half.credit.state_dict())))
    resumed.policy.load_state(resumed.learner.model.state_dict(), 1)
    for number in (2, 3):
        asyncio.run(resumed.update(number))
    assert torch.equal(resumed.weights(), trained(name).weights())
