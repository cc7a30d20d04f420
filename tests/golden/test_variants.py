"""The golden form with other numbers, worked by hand: what the published cases leave open."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden.adapters import ADAPTERS
from tests.golden.test_golden import agrees


def case(kind: str, plugin: str, given: Any, params: Any, expected: Any) -> dict[str, Any]:
    return {"id": plugin, "kind": kind, "plugin": plugin, "input": given, "params": params, "expected": expected}


VARIANTS = {
    "population deviation": case(
        "credit", "grpo", {"rewards": [1.0, 0.0], "group": ["x", "x"]}, {"eps": 1e-9, "ddof": 0},
        {"advantages": [1.0, -1.0]},
    ),
    "a sequence's product leaves masked tokens out": case(
        "off_policy", "tis", {"ratio_train_over_rollout": [2.0, 9.0, 1.5], "mask": [1, 0, 1]},
        {"level": "sequence", "cap": 2.5}, {"raw": 3.0, "weights": [2.5, 0.0, 2.5]},
    ),
    "k1 bounds act on rollout over train": case(
        "off_policy", "rejection", {"ratio_train_over_rollout": [[2.0, 2.0], [0.8, 0.8]]},
        {"mode": "seq_mean_k1", "low": 0.6, "high": 1.3}, {"keep": [[0, 0], [1, 1]]},
    ),
    "the second-longest ends the baseline, in any order": case(
        "credit", "optimal_token_baseline",
        {
            "prob_of_sampled_token": [[0.5], [0.5, 0.5]], "sum_pi_sq": [[0.5], [0.5, 0.5]],
            "token_rewards": [[1.0], [0.0, 1.0]], "mask": [[1], [1, 1]], "group": [7, 7],
        },
        {"eps": 1e-8, "handle_zero_tail": True}, {"advantages": [[0.0], [0.0, 1.0]]},
    ),
    "without the rule the longest is its own baseline": case(
        "credit", "optimal_token_baseline",
        {
            "prob_of_sampled_token": [[0.5], [0.5, 0.5]], "sum_pi_sq": [[0.5], [0.5, 0.5]],
            "token_rewards": [[1.0], [0.0, 1.0]], "mask": [[1], [1, 1]], "group": [7, 7],
        },
        {"eps": 1e-8, "handle_zero_tail": False}, {"advantages": [[0.0], [0.0, 0.0]]},
    ),
    "the paper's order on the code's target": case(
        "policy_loss", "bapo", {"ratio": [2.0, 0.5], "advantages": [1.0, -1.0]},
        {"low_start": 0.6, "low_max": 0.9, "high_start": 1.2, "high_max": 3.0, "step_high": 0.1, "step_low": 0.1,
         "target_pos_over_neg": 2.5, "order": "high_first"},
        {"clip_low": 0.6, "clip_high": 1.5, "pos_over_neg": 2.5},
    ),
    "a target out of reach raises everything": case(
        "policy_loss", "bapo", {"ratio": [2.0, 0.5], "advantages": [1.0, -1.0]},
        {"low_start": 0.6, "low_max": 0.9, "high_start": 1.2, "high_max": 1.7, "step_high": 0.2, "step_low": 0.2,
         "target_pos_share": 0.99, "order": "high_first"},
        {"clip_low": 0.9, "clip_high": 1.7},
    ),
    "an answer ends the rollout, so that nothing after it is void": case(
        "trajectory_filter", "simpletir", {"trajectories": {"late": ["\\boxed{1}", "and so on"]}}, {},
        {"late": {"void_turn_index": None, "keep_in_loss": True}},
    ),
    "rows weigh in GiGPO's episode statistics": case(
        "credit", "gigpo",
        {
            "trajectories": {"A": {"states": ["s", "t", "u"], "rewards": [0, 0, 1.0]},
                             "B": {"states": ["v"], "rewards": [0.0]}},
            "episode_reward": {"A": 1.0, "B": 0.0}, "group": 0,
        },
        {"gamma": 0.5, "omega": 2.0, "mode": "mean_norm"},
        {"returns": [0.25, 0.5, 1.0, 0.0], "A_episode": [0.25, 0.25, 0.25, -0.75], "A_step": [0.0] * 4,
         "A": [0.25, 0.25, 0.25, -0.75]},
    ),
    "two failing trajectories open two step groups": case(
        "credit", "thor",
        {"trajectory_execution_all_pass": [False, True, False], "suffix_execution_pass": [[1, 0], [0, 0]],
         "prefix_tokens": 1, "suffix_tokens": 1},
        {"eps": 1e-9}, {"step_group_from": [0, 2], "advantages": [[0.70710678, -0.70710678], [0.0, 0.0]],
                        "loss_mask_row": [0, 1]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_another_case_of_the_form(name: str) -> None:
    one = VARIANTS[name]
    agrees(one["expected"], ADAPTERS[one["kind"], one["plugin"]](one), 1e-6, name)


def test_a_wrong_number_and_a_missing_answer_fail() -> None:
    one = VARIANTS["population deviation"]
    for wrong in ({"advantages": [1.0, -1.1]}, {"advantages": [1.0]}, {"advantage": [1.0, -1.0]}):
        with pytest.raises(AssertionError):
            agrees(wrong, ADAPTERS[one["kind"], one["plugin"]](one), 1e-6, "wrong")
