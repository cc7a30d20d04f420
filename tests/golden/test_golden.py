"""The golden cases of the trainer's plug-ins, where the file with them is at hand; hand-worked numbers stand in
tests/trainers. `$AGENTHUB_GOLDEN` names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agenthub.trainers.aggregate import aggregate, total
from agenthub.trainers.batch import build_batch
from agenthub.trainers.credit import GRPO, MTGRPO
from agenthub.trainers.filters import SimpleTIR, void_by_text
from agenthub.trainers.losses import PPO, clipped_surrogate
from agenthub.trainers.types import Batch
from tests.trainers.fakes import ANSWER, CODE, PROSE, trajectory, turn

FILE = Path(os.environ.get("AGENTHUB_GOLDEN", Path(__file__).parents[3] / "shared" / "golden" / "methods.json"))
Case = dict[str, Any]


def per_trajectory(batch: Batch, advantage: np.ndarray[Any, Any]) -> list[float]:
    """The one advantage of each trajectory's action tokens."""
    rows = []
    for n in range(batch.trajectories):
        (value,) = np.unique(advantage[(batch.trajectory_of_token == n) & batch.action_mask])
        rows.append(float(value))
    return rows


def simpletir_void_detect(case: Case) -> None:
    for name, texts in case["input"]["trajectories"].items():
        batch = build_batch([trajectory(texts)])
        void = [index for index, turn in enumerate(batch.turns) if void_by_text(turn)]
        expected = case["expected"][name]
        assert (void[0] if void else None) == expected["void_turn_index"], name
        assert bool(SimpleTIR(predicate="text").apply(batch).in_loss.any()) == expected["keep_in_loss"], name


def simpletir_masks(case: Case) -> None:
    """The case's row is 3 action tokens, 2 of feedback, 2 action tokens, 1 of padding; a batch has no padding."""
    rows = []
    for member, void in enumerate(case["input"]["void"]):
        first = turn(0, CODE, prompt=[1], ids=[2, 3, 4])
        second = turn(1, PROSE if void else ANSWER, prompt=[1, 2, 3, 4, 5, 6], ids=[7, 8], rewards={"outcome": 0.0})
        rows.append(replace(trajectory([CODE, ANSWER], member=member), turns=(first, second)))
    batch = build_batch(rows)
    filtered = SimpleTIR().apply(batch)
    for n, expected in enumerate(case["expected"]["loss_mask"]):
        assert filtered.in_loss[batch.trajectory_of_token == n].tolist() == [False, *map(bool, expected[:-1])]
    assert filtered.in_stats.tolist() == [bool(value) for value in case["expected"]["stat_mask"]]
    assert batch.with_filter(filtered).trajectory_in_stats.tolist() == case["expected"]["group_member"]


def simpletir_group_stats_and_loss(case: Case) -> None:
    given = case["input"]
    batch = build_batch(
        [
            trajectory([PROSE if void else ANSWER], reward=reward, member=member, action=size)
            for member, (reward, void, size) in enumerate(
                zip(given["rewards"], given["void"], given["action_tokens"], strict=True)
            )
        ]
    )
    batch = batch.with_filter(SimpleTIR().apply(batch))
    advantage = GRPO(eps=case["params"]["eps"]).advantage(batch)
    assert per_trajectory(batch, advantage) == pytest.approx(case["expected"]["advantages"], abs=case["tol"])
    lp = torch.from_numpy(np.array(batch.old_logprobs)) + float(np.log(given["ratio"]))
    A = torch.from_numpy(advantage)
    terms = PPO(aggregation=case["params"]["agg"]).terms(lp, batch, A, torch.ones_like(A), {})
    loss = total(terms, torch.from_numpy(batch.sample_of_token).long())
    assert loss.item() == pytest.approx(case["expected"]["loss"], abs=case["tol"])


def simpletir_group_gate(case: Case) -> None:
    rows = [
        trajectory([ANSWER], reward=float(reward), group=group, member=member)
        for group, rewards in case["input"]["groups"].items()
        for member, reward in enumerate(rewards)
    ]
    assert dict(SimpleTIR(**case["params"]).apply(build_batch(rows)).keep_group) == case["expected"]["keep_group"]


def grpo(case: Case) -> None:
    rewards = case["input"]["rewards"]
    groups = [str(name) for name in case["input"]["group"]]
    batch = build_batch(
        [
            trajectory([ANSWER], reward=reward, group=group, member=member)
            for member, (reward, group) in enumerate(zip(rewards, groups, strict=True))
        ]
    )
    advantage = GRPO(**case["params"]).advantage(batch)
    assert per_trajectory(batch, advantage) == pytest.approx(case["expected"]["advantages"], abs=case["tol"])


def mt_grpo(case: Case) -> None:
    given = case["input"]
    batch = build_batch(
        [
            trajectory([CODE, ANSWER], reward=outcome, turn_rewards=[turn], member=m, prompt=1, action=2, observation=1)
            for m, (outcome, turn) in enumerate(zip(given["outcome_rewards"], given["turn_rewards"], strict=True))
        ]
    )
    advantage = MTGRPO(**case["params"]).advantage(batch)
    for n, expected in enumerate(case["expected"]["advantages"]):
        row = advantage[batch.trajectory_of_token == n][1:]  # the prompt's one token stands first
        assert row.tolist() == pytest.approx(expected, abs=case["tol"])


def dapo_clip_higher(case: Case) -> None:
    names = {"clip_low": "clip_low", "clip_high": "clip_high", "dual_clip": "dual_clip_c"}
    bounds = {key: case["params"][name] for key, name in names.items()}
    for sign, advantage in zip(("pos", "neg"), case["input"]["advantage"], strict=True):
        lp = torch.tensor(case["input"]["ratio"], dtype=torch.float64).log().requires_grad_(True)
        loss = clipped_surrogate(lp, torch.zeros_like(lp), torch.full_like(lp, advantage), **bounds)
        (slope,) = torch.autograd.grad(loss.sum(), lp)
        assert loss.tolist() == pytest.approx(case["expected"][f"loss_{sign}"], abs=case["tol"])
        assert slope.tolist() == pytest.approx(case["expected"][f"dloss_dlogp_{sign}"], abs=case["tol"])


def aggregation_modes(case: Case) -> None:
    mask = torch.tensor(case["input"]["mask"]).bool().flatten()
    loss = torch.tensor(case["input"]["token_loss"]).float().flatten()
    sample = torch.tensor([0] * 4 + [1] * 4)
    for mode, expected in case["expected"].items():
        value = aggregate(loss, mask, sample, mode, max_length=case["params"]["max_len"]).item()
        assert value == pytest.approx(expected, abs=case["tol"]), mode


CASES: dict[str, Callable[[Case], None]] = {
    "aggregation_modes": aggregation_modes,
    "dapo_clip_higher": dapo_clip_higher,
    "grpo": grpo,
    "grpo_two_groups_singleton": grpo,
    "mt_grpo": mt_grpo,
    "simpletir_group_gate": simpletir_group_gate,
    "simpletir_group_stats_and_loss": simpletir_group_stats_and_loss,
    "simpletir_masks": simpletir_masks,
    "simpletir_void_detect": simpletir_void_detect,
}


@pytest.mark.skipif(not FILE.is_file(), reason=f"no golden cases at {FILE.name}; AGENTHUB_GOLDEN names the file")
@pytest.mark.parametrize("name", sorted(CASES))
def test_golden(name: str) -> None:
    (case,) = [case for case in json.loads(FILE.read_text(encoding="utf-8"))["cases"] if case["id"] == name]
    CASES[name](case)
