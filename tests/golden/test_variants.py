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
    "text after the first code block was cut, so that an answer there ends nothing": case(
        "trajectory_filter", "simpletir",
        {"trajectories": {"after": ["```py\n1\n```\n\\boxed{1}", "hm"], "before": ["\\boxed{1} ```py\n1\n```", "hm"]}},
        {}, {"after": {"void_turn_index": 1, "keep_in_loss": False},
             "before": {"void_turn_index": None, "keep_in_loss": True}},
    ),
    "an expression without flags has the published one": case(
        "trajectory_filter", "simpletir", {"trajectories": {"long": ["<code>a\nb</code>"]}},
        {"code_regex": "<code>(.*?)</code>"}, {"long": {"void_turn_index": None, "keep_in_loss": True}},
    ),
    "flags by their short names": case(
        "trajectory_filter", "simpletir", {"trajectories": {"long": ["<CODE>a\nb</code>"], "other": ["\\boxed{1}"]}},
        {"code_regex": "<code>(.*?)</code>", "flags": "re.S | re.I", "answer_marker": "ANSWER:"},
        {"long": {"void_turn_index": None, "keep_in_loss": True},
         "other": {"void_turn_index": 0, "keep_in_loss": False}},
    ),
    "truncated trajectories leave loss and statistics with remove_clip": case(
        "trajectory_filter", "simpletir",
        {"token_kind": ["act", "obs", "act"], "void": [False, False], "truncated": [True, False]},
        {"remove_clip": True},
        {"loss_mask": [[0, 0, 0], [1, 0, 1]], "stat_mask": [0, 1], "group_member": [False, True]},
    ),
    "without masking void turns nothing leaves": case(
        "trajectory_filter", "simpletir", {"token_kind": ["act", "obs"], "void": [True]}, {"mask_void_turns": False},
        {"loss_mask": [[1, 0]], "stat_mask": [1], "group_member": [True]},
    ),
    "the published gate where a case names none": case(
        "trajectory_filter", "simpletir",
        {"groups": {"few": [1, 0], "hard": [1] + [0] * 15, "easy": [1] * 15 + [0], "tenth": [1] + [0] * 9}}, {},
        {"keep_group": {"few": False, "hard": False, "easy": False, "tenth": True}},
    ),
    "a mean over tokens, and trajectories without any": case(
        "trajectory_filter", "simpletir+grpo",
        {"rewards": [1.0, 0.0, 0.0, 1.0], "void": [0, 0, 1, 0], "action_tokens": [3, 1, 2, 0], "ratio": 1.0},
        {"ddof": 0, "eps": 0}, {"advantages": [1.0, -1.0, -1.0, 1.0], "loss": -0.5},
    ),
    "ratios of trajectories and of tokens": case(
        "trajectory_filter", "simpletir+grpo",
        {"rewards": [1.0, 0.0], "void": [0, 0], "action_tokens": [1, 3], "ratio": [1.5, [0.5, 1.0, 4.0]]},
        {"ddof": 0, "eps": 1e-9, "dual_clip_c": 2.0}, {"loss": (-1.28 + 0.8 + 1.0 + 2.0) / 4},
    ),
    "padding with a probability of 0": case(
        "credit", "optimal_token_baseline",
        {
            "prob_of_sampled_token": [[0.5, 0.0], [0.5, 0.5]], "sum_pi_sq": [[0.5, 0.0], [0.5, 0.5]],
            "token_rewards": [[1.0, 0.0], [0.0, 1.0]], "mask": [[1, 0], [1, 1]], "group": [0, 0],
        },
        {}, {"w": [[0.5, 1.0], [0.5, 0.5]], "W_cum": [[0.5, 0.0], [0.5, 1.0]], "advantages": [[0.0, 0.0], [0.0, 1.0]]},
    ),
    "GiGPO's groups as a list": case(
        "credit", "gigpo",
        {
            "trajectories": {"A": {"states": ["s"], "rewards": [1.0]}, "B": {"states": ["s"], "rewards": [0.0]},
                             "C": {"states": ["s"], "rewards": [0.9]}},
            "episode_reward": {"A": 1.0, "B": 0.0, "C": 0.9}, "group": [0, 0, 1],
        },
        {}, {"A_episode": [0.5, -0.5, 0.0], "A_step": [0.5, -0.5, 0.0], "A": [1.0, -1.0, 0.0]},
    ),
    "step groups of unlike sizes": case(
        "credit", "thor",
        {"trajectory_execution_all_pass": [False, False], "suffix_execution_pass": [[1, 0, 1, 0], [0, 1]],
         "prefix_tokens": 0, "suffix_tokens": 1},
        {"eps": 1e-9}, {"step_group_from": [0, 1], "loss_mask_row": [1],
                        "advantages": [[0.8660254, -0.8660254, 0.8660254, -0.8660254], [-0.70710678, 0.70710678]]},
    ),
    "suffixes in one row, so many for each failure": case(
        "credit", "thor",
        {"trajectory_execution_all_pass": [False, False], "suffix_execution_pass": [1, 0, 1, 1],
         "prefix_tokens": 1, "suffix_tokens": 1},
        {"eps": 1e-9, "n_suffix": 2}, {"step_group_from": [0, 1], "loss_mask_row": [0, 1],
                                       "advantages": [0.70710678, -0.70710678, 0.0, 0.0]},
    ),
    "no failure opens no step group": case(
        "credit", "thor",
        {"trajectory_execution_all_pass": [True], "suffix_execution_pass": [], "prefix_tokens": 1, "suffix_tokens": 1},
        {}, {"step_group_from": [], "advantages": []},
    ),
    "DAPO's bounds where a case names none": case(
        "policy_loss", "ppo_clip", {"ratio": [1.25, 1.5, 0.5, 9.0]}, {},
        {"loss_pos": [-1.25, -1.28, -0.5, -1.28], "loss_neg": [1.25, 1.5, 0.8, 3.0]},
    ),
    "a width stands for a length that is not given": case(
        "policy_loss", "aggregate", {"token_loss": [[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]], "mask": [[1, 1], [0] * 4]}, {},
        {"seq-mean-token-sum-norm": 0.75, "seq-mean-token-mean": 1.5},
    ),
    "a sequence without tokens is in no mean": case(
        "policy_loss", "gspo",
        {"logp_minus_old": [[0.1, 0.2], [0.3]], "mask": [[1, 1], [0]], "advantages": [1.0, 1.0]},
        {"clip_low": 0.5, "clip_high": 0.5}, {"seq_ratio": [1.16183424, 1.0], "loss": -1.16183424},
    ),
    "one of either sign where a case names no advantage": case(
        "policy_loss", "minirl", {"ratio_theta_over_old": [1.3, 0.7], "ratio_theta_over_mu": [6.0, 0.5]}, {},
        {"M_pos": [0, 1], "M_neg": [1, 0], "coef_pos": [0.0, -0.5], "coef_neg": [5.0, 0.0]},
    ),
    "no advantage at all misses either target": case(
        "policy_loss", "bapo", {"ratio": [2.0], "advantages": [0.0]}, {"order": "low_first"},
        {"clip_low": 0.9, "clip_high": 3.0, "pos_over_neg": 0.0, "pos_share": 0.0},
    ),
    "OPMD in two groups": case(
        "policy_loss", "opmd",
        {"rewards": [1.0, 0.0, 5.0, 5.0], "logp": [-1.0, -2.0, -3.0, -4.0], "group": ["a", "a", "b", "b"]},
        {"baseline": "mean"}, {"adv_mean": [0.5, -0.5, 0.0, 0.0], "loss_mean": -0.0625},
    ),
    "CHORD's own share where a case names none": case(
        "policy_loss", "chord", {"grpo_loss": 2.0, "sft_token_logp": [-0.69314718056], "steps": [0, 7]}, {},
        {"mu": [0.1, 0.1], "mixed": 1.8 + 0.025 * 0.69314718056},
    ),
    "plain distillation and beyond where a case names no lambda": case(
        "policy_loss", "g_opd", {"student_logp": [-1.0], "ref_logp": [-1.5], "teacher_logp": [-0.5]}, {},
        {"adv_lambda1": [0.5], "adv_lambda1.0": [0.5], "adv_lambda1.25": [0.75]},
    ),
    "a sequence's ratio is that of its action tokens, whatever the padding": case(
        "off_policy", "tis", {"ratio_train_over_rollout": [[0.5, 0.0, 0.5], [7.0]], "mask": [[1, 0, 1], [0]]},
        {"level": "sequence", "cap": 2.0}, {"raw": [0.25, 1.0], "weights": [[0.25, 0.0, 0.25], [0.0]]},
    ),
    "an unknown ratio is 1": case(
        "off_policy", "tis", {"ratio_train_over_rollout": [float("nan"), 4.0], "mask": [1, 1]}, {},
        {"weights": [1.0, 2.0]},
    ),
    "a ratio at the cap stays": case(
        "off_policy", "mis", {"ratio_train_over_rollout": [3.0, 3.001, 2.999]}, {"level": "token"},
        {"weights": [3.0, 0.0, 2.999]},
    ),
    "a ratio at a bound stays": case(
        "off_policy", "icepop", {"ratio_train_over_rollout": [0.3, 3.0, 0.299, 3.001]}, {"low": 0.3, "high": 3.0},
        {"weights": [0.3, 3.0, 0.0, 0.0]},
    ),
    "a visit that is not there is as the one before it": case(
        "curriculum", "limr", {"reward_trajectories": [[0.5, 1.0], [0.0, None, 1.0]], "avg": [0.5, 0.5, 1.0]}, {},
        {"score": [0.5, 0.0], "keep": [False, False]},
    ),
    "a hundred updates a stage where a case names none": case(
        "rollout", "scaling_inter", {"steps": [1, 100, 101]}, {"rounds": [3, 4]},
        {"max_turns": [3, 3, 4], "at_S2": {"2": 3, "3": 4}},
    ),
    "one mean of the tools' entropies": case(
        "rollout", "aepo", {"H_root": 1.0, "H_tool_mean": 1.0}, {"k": 8}, {"m_float": 4.0, "m": 4, "branches": 4},
    ),
    "the damping line in other words": case(
        "rollout", "aepo", {"P_base": 0.8, "consecutive": [0, 1, 8]}, {"p_hat": "min(l / 4, 1.0)"},
        {"P": [0.8, 0.6, 0.0]},
    ),
    "no cache leaves the step": case(
        "reward", "soft_overlong", {"lengths": [9, 10, 11]}, {"max_len": 10, "cache": 0}, {"penalty": [0.0, 0.0, -1.0]},
    ),
    "the players are the civilians and a spy": case(
        "reward", "vision_zero", {"n_civilians": 3, "votes": {"spy": 3}}, {}, {"spy": 0.0},
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
