"""How a golden case's fields become a call of a public plug-in, and the plug-in's answer the case's fields.

An adapter looks at the case's fields alone, never at its id, and answers with everything it can; what the case expects
and the adapter does not answer is a failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agenthub.rewards.spy import detective_reward, spy_reward
from agenthub.trainers.aggregate import Axes, aggregate, total
from agenthub.trainers.plugins import LossState, make
from agenthub.trainers.types import EXPERT, REFINED, Batch
from tests.golden.batches import Row, flat

__all__ = ["ADAPTERS", "Answer", "Case"]

Case = Mapping[str, Any]
Answer = dict[str, Any]
CPU = torch.device("cpu")


def options(case: Case, drop: Sequence[str] = (), **names: str) -> dict[str, Any]:
    """The case's parameters as options, renamed, less those that say how the case is read."""
    params = {key: value for key, value in case["params"].items() if key not in drop}
    if params.get("eps") == 0:
        # A plug-in refuses to divide by nothing; this is the same to every digit that a case gives.
        params["eps"] = 1e-12
    return {names.get(key, key): value for key, value in params.items()}


def table(value: Any) -> list[list[Any]]:
    """A row of numbers, or rows of them, as rows."""
    return value if value and isinstance(value[0], list) else [value]


def shaped_like(like: Any, rows: Sequence[Sequence[float]]) -> Any:
    """Rows back as a single row where the case gives a single one."""
    return [list(row) for row in rows] if like and isinstance(like[0], list) else list(rows[0])


def groups(case: Case, size: int) -> list[Any]:
    given = case["input"].get("group", 0)
    return list(given) if isinstance(given, list) else [given] * size


def per_row(batch: Batch, values: np.ndarray[Any, Any]) -> list[list[float]]:
    return [values[batch.sample_of_token == s].tolist() for s in range(batch.samples)]


def first_of(batch: Batch, values: np.ndarray[Any, Any]) -> list[float]:
    """The one value of each trajectory's action tokens."""
    out = []
    for n in range(batch.trajectories):
        (value,) = np.unique(values[(batch.trajectory_of_token == n) & batch.action_mask])
        out.append(float(value))
    return out


def run(plugin: Any, batch: Batch, lp: Tensor, A: Tensor, state: LossState | None = None) -> tuple[Any, Tensor, Tensor]:
    """(terms, the loss, its gradient by `lp`)"""
    terms = plugin.terms(lp, batch, A, torch.ones_like(A), state or LossState(values=plugin.start()))
    loss = total(terms, Axes.of(batch, CPU))
    (slope,) = torch.autograd.grad(loss, lp)
    return terms, loss, slope


def advantages_of(case: Case) -> list[float]:
    """Those that a row of ratios is tried with: one of either sign where the case names none."""
    return list(np.atleast_1d(case["input"].get("advantage", [1.0, -1.0])).tolist())


def log(ratio: float) -> float:
    """Padding may have a ratio or a probability of 0."""
    return math.log(ratio) if ratio else -math.inf


def by_sign(case: Case, plugin: Any, key: str) -> Answer:
    """Token losses and slopes of one row of ratios, with a positive and a negative advantage."""
    ratios = case["input"][key]
    out: Answer = {}
    batch = flat([Row(mask=[1] * len(ratios), old=[0.0] * len(ratios))])
    for advantage in advantages_of(case):
        lp = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_(True)
        terms, _, slope = run(plugin, batch, lp, torch.full_like(lp, advantage).detach())
        sign = "pos" if advantage > 0 else "neg"
        out |= {f"loss_{sign}": terms[0].loss.tolist(), f"dloss_dlogp_{sign}": slope.tolist()}
    return out


def simpletir_options(case: Case, drop: Sequence[str] = ()) -> dict[str, Any]:
    """The case's parameters as the filter's options, by the published code's names as well."""
    params, known = case["params"], options(case, drop=("mask_void_turns", "remove_clip", *drop))
    if params.get("remove_clip"):
        known["truncated"] = "drop"
    if not params.get("mask_void_turns", True):
        known["effect"] = "none"
    return known


def void_detect(case: Case) -> Answer:
    params = case["params"]
    # As re has them, in full or short; the published expression has DOTALL.
    given = params.get("flags", "DOTALL")
    names = re.split(r"[|, ]+", given) if isinstance(given, str) else given
    flags = {"DOTALL": "s", "IGNORECASE": "i", "MULTILINE": "m", "S": "s", "I": "i", "M": "m"}
    used = "".join(flags[name.removeprefix("re.")] for name in names if name)
    known: dict[str, Any] = {"predicate": "text"}
    if "code_regex" in params:
        known["code_pattern"] = (f"(?{used})" if used else "") + params["code_regex"]
    if "answer_marker" in params:
        known["answer_marker"] = params["answer_marker"]
    plugin = make("filter", "simpletir", known | simpletir_options(case, drop=("code_regex", "flags", "answer_marker")))
    out: Answer = {}
    for name, texts in case["input"]["trajectories"].items():
        batch = flat([Row(mask=[1] * len(texts), turn=range(len(texts)), texts=texts)])
        void = np.flatnonzero(plugin.void_turns(batch)).tolist()
        kept = bool(plugin.apply(batch).in_loss.any())
        out[name] = {"void_turn_index": void[0] if void else None, "keep_in_loss": kept}
    return out


def void_masks(case: Case) -> Answer:
    kinds, voids = case["input"]["token_kind"], case["input"]["void"]
    kinds = table(kinds) * (1 if isinstance(kinds[0], list) else len(voids))
    cut = case["input"].get("truncated", [False] * len(voids))
    rows = []
    for row, void, truncated in zip(kinds, voids, cut, strict=True):
        mask = [int(kind == "act") for kind in row]
        # Each run of action tokens is a turn; what stands before the next one is in that one's prompt.
        begins = np.diff([0, *mask]) > 0
        turn = np.maximum(np.cumsum(begins) - 1, 0).tolist()
        texts = ["```python\n1\n```"] * max(turn) + ["so be it" if void else "\\boxed{1}"]
        rows.append(Row(mask=mask, turn=turn, texts=texts, truncated=bool(truncated)))
    batch = flat(rows)
    filtered = make("filter", "simpletir", simpletir_options(case)).apply(batch)
    return {
        "loss_mask": per_row(batch, filtered.in_loss.astype(int)),
        "stat_mask": filtered.in_stats.astype(int).tolist(),
        "group_member": batch.with_filter(filtered).trajectory_in_stats.tolist(),
    }


def void_and_grpo(case: Case) -> Answer:
    given, sizes = case["input"], case["input"]["action_tokens"]
    of_loss = {"agg": "aggregation", "max_len": "max_length", "clip_low": "clip_low", "clip_high": "clip_high"}
    of_loss["dual_clip_c"] = "dual_clip"
    credit = make("credit", "grpo", options(case, drop=list(of_loss)))

    def played(sizes: Sequence[int]) -> tuple[Batch, np.ndarray[Any, Any]]:
        rows = [
            Row(mask=[1] * size, old=[0.0] * size, reward=reward, group=group, texts=["hm" if void else "\\boxed{1}"])
            for reward, void, size, group in zip(
                given["rewards"], given["void"], sizes, groups(case, len(sizes)), strict=True
            )
        ]
        batch = flat(rows)
        batch = batch.with_filter(make("filter", "simpletir", {}).apply(batch))
        return batch, credit.advantage(batch)

    batch, advantage = played(sizes)
    ratios = given["ratio"] if isinstance(given["ratio"], list) else [given["ratio"]] * len(sizes)
    ratio = [np.broadcast_to(np.asarray(one, np.float64), size) for one, size in zip(ratios, sizes, strict=True)]
    lp = torch.tensor(np.log(np.concatenate(ratio)), requires_grad=True)
    known = {new: case["params"][old] for old, new in of_loss.items() if old in case["params"]}
    # The constant length is the batch's width where a case names none, as in verl.
    loss = make("loss", "ppo", {"clip_high": 0.28, "max_length": max(sizes)} | known)
    # A trajectory without tokens has an advantage as well: that of one with a token.
    shown = first_of(*played([max(size, 1) for size in sizes]))
    return {"advantages": shown, "loss": run(loss, batch, lp, torch.tensor(advantage))[1].item()}


def group_gate(case: Case) -> Answer:
    given = case["input"]["groups"]
    batch = flat([Row(reward=reward, group=name, texts=["\\boxed{1}"]) for name in given for reward in given[name]])
    # The filter's own gate is open; what a case leaves out is as published.
    published = {"min_n": 4, "std_min": 1e-3, "acc_low": 0.1, "acc_high": 0.9}
    plugin = make("filter", "simpletir", published | simpletir_options(case))
    return {"keep_group": dict(plugin.apply(batch).keep_group)}


def simpletir(case: Case) -> Answer:
    given = case["input"]
    if "trajectories" in given:
        return void_detect(case)
    return void_masks(case) if "token_kind" in given else group_gate(case)


def dapo_dynamic(case: Case) -> Answer:
    accuracies = case["input"]["acc_groups"]
    batch = flat([Row(reward=value, group=number) for number, row in enumerate(accuracies) for value in row])
    plugin = make("filter", "dapo_dynamic", options(case))
    filtered = plugin.apply(batch)
    return {
        "keep": [filtered.keep_group[name] for name in batch.groups],
        "need_more_rollouts": plugin.needs_more(filtered),
    }


def whole_trajectories(name: str) -> Callable[[Case], Answer]:
    def adapter(case: Case) -> Answer:
        rewards = case["input"]["rewards"]
        rows = [Row(reward=r, group=g) for r, g in zip(rewards, groups(case, len(rewards)), strict=True)]
        batch = flat(rows)
        return {"advantages": first_of(batch, make("credit", name, options(case)).advantage(batch))}

    return adapter


def otb(name: str) -> Callable[[Case], Answer]:
    def adapter(case: Case) -> Answer:
        given = case["input"]
        masks = given["mask"]
        rows = [
            Row(
                mask=mask,
                turn=range(len(mask)),
                turn_rewards=[r * m for r, m in zip(given["token_rewards"][n], mask, strict=True)],
                outcome=0.0,
                group=group,
                old=[log(p) for p in given["prob_of_sampled_token"][n]],
                scores={"sum_pi_sq": given["sum_pi_sq"][n]},
            )
            for n, (mask, group) in enumerate(zip(masks, groups(case, len(masks)), strict=True))
        ]
        batch = flat(rows)
        parts = make("credit", name, options(case)).parts(batch)
        return {key: per_row(batch, value) for key, value in parts.items()}

    return adapter


def gigpo(case: Case) -> Answer:
    given = case["input"]
    names = list(given["trajectories"])
    group = given.get("group", 0)
    if isinstance(group, list):
        group = dict(zip(names, group, strict=True))
    rows = [
        Row(
            mask=[1] * len(one["states"]),
            turn=range(len(one["states"])),
            anchors=[str(state) for state in one["states"]],
            turn_rewards=one["rewards"],
            reward=given["episode_reward"][name],
            outcome=0.0,
            group=group[name] if isinstance(group, dict) else group,
        )
        for name, one in given["trajectories"].items()
    ]
    batch, plugin = flat(rows), make("credit", "gigpo", options(case))
    episode, step = plugin.parts(batch)
    order = [f"{names[n]}{t}" for n, t in zip(batch.trajectory_of_turn, batch.turn_index, strict=True)]
    return {
        "row_order": order,
        "returns": plugin.discounted(batch).tolist(),
        "A_episode": episode.tolist(),
        "A_step": step.tolist(),
        "A": plugin.advantage(batch).tolist(),
    }


def mt_grpo(case: Case) -> Answer:
    given = case["input"]
    size = len(given["outcome_rewards"])
    masks = table(given["action_mask"]) * (1 if isinstance(given["action_mask"][0], list) else size)
    early = table(given["first_turn_mask"]) * (1 if isinstance(given["first_turn_mask"][0], list) else size)
    rows = [
        Row(
            mask=masks[n],
            turn=[1 - flag for flag in early[n]],
            turn_rewards=[given["turn_rewards"][n], 0.0],
            observed=[True, False],
            outcome=given["outcome_rewards"][n],
            group=group,
        )
        for n, group in enumerate(groups(case, size))
    ]
    batch, plugin = flat(rows), make("credit", "mt_grpo", options(case))
    a_outcome, a_turn = plugin.parts(batch)
    tokens = per_row(batch, plugin.advantage(batch))
    return {"A_outcome": a_outcome.tolist(), "A_turn": a_turn.tolist(), "advantages": tokens}


def flow_grpo(case: Case) -> Answer:
    turns = case["input"]["turns_per_trajectory"]
    rows = [
        Row(mask=[1] * size, turn=range(size), reward=reward, group=group)
        for size, reward, group in zip(turns, case["input"]["final_rewards"], groups(case, len(turns)), strict=True)
    ]
    batch, out = flat(rows), {}
    for name, statistics in (("trajectory", "trajectories"), ("row", "turns")):
        plugin = make("credit", "flow_grpo", options(case) | {"statistics": statistics})
        out[f"adv_per_turn_{name}_stats"] = plugin.advantage(batch).tolist()
    # A turn of one token: the gradient of the aggregate by its loss is the turn's weight.
    loss = torch.zeros(batch.tokens, dtype=torch.float64, requires_grad=True)
    mean = aggregate(loss, torch.ones_like(loss).bool(), Axes.of(batch, CPU), "traj-mean-turn-mean")
    return out | {"turn_weight_paper": torch.autograd.grad(mean, loss)[0].tolist()}


def thor(case: Case) -> Answer:
    given = case["input"]
    roots = [Row(failed=[0 if ok else 1], reward=float(ok)) for ok in given["trajectory_execution_all_pass"]]
    plugin = make("credit", "thor", options(case, drop=("n_suffix", "alpha_nll")))
    opened = plugin.opens(flat(roots))
    prefix, suffix = given["prefix_tokens"], given["suffix_tokens"]
    passes = given["suffix_execution_pass"]
    rows = table(passes) if opened else []
    if len(opened) > 1 and rows[0] is passes:
        # Each failing trajectory has its own suffixes, one row of them after the other.
        size = case["params"].get("n_suffix", len(passes) // len(opened))
        rows = [passes[first : first + size] for first in range(0, len(passes), size)]
    grown = [
        Row(
            mask=[1] * (prefix + suffix),
            turn=[0] * prefix + [1] * suffix,
            failed=[1, 0],
            reward=float(value),
            fork_turn=1,
            parent=parent,
        )
        for parent, row in zip(opened, rows, strict=False)
        for value in row
    ]
    batch = flat([*roots, *grown])
    kept = make("filter", "thor", {}).apply(batch)
    advantage = plugin.advantage(batch.with_filter(kept))
    by_suffix = [float(advantage[batch.trajectory_of_token == n][-1]) for n in range(len(roots), batch.trajectories)]
    ends = np.cumsum([len(row) for row in rows]).tolist()
    return {
        "step_group_from": opened,
        "advantages": [by_suffix[end - len(row) : end] for end, row in zip(ends, rows, strict=True)]
        if passes and isinstance(passes[0], list)
        else by_suffix,
        "loss_mask_row": kept.in_loss[batch.trajectory_of_token == len(roots)].astype(int).tolist(),
    }


def aepo_credit(case: Case) -> Answer:
    given = case["input"]
    accuracy = np.asarray(given["acc_adv"], np.float64)
    _, group = np.unique([str(name) for name in groups(case, accuracy.size)], return_inverse=True)
    entropy = np.asarray(given["entropy_mean_per_traj"], np.float64)
    everyone = np.ones(accuracy.size, bool)
    plugin = make("credit", "aepo", options(case))
    return {"A": plugin.shaped(accuracy, entropy, group.astype(np.int32), everyone).tolist()}


def ppo_clip(case: Case) -> Answer:
    # What a case leaves out is DAPO's.
    plugin = make("loss", "ppo", {"clip_high": 0.28} | options(case, dual_clip_c="dual_clip") | SUM)
    return by_sign(case, plugin, "ratio")


SUM = {"aggregation": "token-sum"}


def aggregation(case: Case) -> Answer:
    rows = case["input"]["token_loss"]
    batch = flat([Row(mask=mask) for mask in case["input"]["mask"]])
    loss = torch.tensor([value for row in rows for value in row], dtype=torch.float64)
    mask, length = torch.tensor(batch.action_mask), case["params"].get("max_len", max(map(len, rows)))
    axes = Axes.of(batch, CPU)
    return {mode: aggregate(loss, mask, axes, mode, max_length=length).item() for mode in case["expected"]}


def gspo(name: str) -> Callable[[Case], Answer]:
    def adapter(case: Case) -> Answer:
        from agenthub.trainers.losses import Tokens

        given, params = case["input"], case["params"]
        deltas = given["logp_minus_old"]
        masks = given.get("mask", [[1] * len(row) for row in deltas])
        batch = flat([Row(mask=mask, old=[0.0] * len(mask)) for mask in masks])
        known = {key: params[key] for key in ("clip_low", "clip_high") if key in params}
        mode = {"aggregation": params["agg"]} if "agg" in params else {}
        length = {"max_length": params.get("max_len", max(map(len, deltas)))}
        plugin = make("loss", name, known | mode | length)
        lp = torch.tensor([value for row in deltas for value in row], dtype=torch.float64, requires_grad=True)
        if "advantages_per_token" in given:
            values = [value for row in given["advantages_per_token"] for value in row]
        else:
            values = [a for a, row in zip(given["advantages"], deltas, strict=True) for _ in row]
        A = torch.tensor(values, dtype=torch.float64)
        state = LossState()
        ratio = plugin.ratio(Tokens.of(lp, batch, A, state))
        terms, loss, slope = run(plugin, batch, lp, A, state)
        inside = [np.flatnonzero((batch.sample_of_token == s) & batch.action_mask) for s in range(batch.samples)]
        return {
            "seq_ratio": [ratio[int(rows[0])].item() if rows.size else 1.0 for rows in inside],
            "seq_loss": [terms[0].loss[rows].mean().item() if rows.size else 0.0 for rows in inside],
            "token_ratio_value": per_row(batch, ratio.detach().numpy()),
            "token_loss": per_row(batch, terms[0].loss.detach().numpy()),
            "loss": loss.item(),
            "dloss_dlogp": per_row(batch, slope.numpy()),
        }

    return adapter


def sapo(case: Case) -> Answer:
    return by_sign(case, make("loss", "sapo", options(case) | SUM), "ratio")


def cispo(case: Case) -> Answer:
    return by_sign(case, make("loss", "cispo", options(case) | SUM), "ratio")


def minirl(case: Case) -> Answer:
    given, out = case["input"], Answer()
    theta_old = torch.tensor(given["ratio_theta_over_old"], dtype=torch.float64)
    theta_mu = np.asarray(given["ratio_theta_over_mu"], np.float64)
    plugin = make("loss", "minirl", options(case) | SUM)
    batch = flat(
        [Row(mask=[1] * theta_mu.size, old=[0.0] * theta_mu.size, rollout=list(np.log(theta_old.numpy() / theta_mu)))]
    )
    for advantage in advantages_of(case):
        lp = theta_old.log().requires_grad_(True)
        A = torch.full_like(theta_old, advantage)
        _, _, slope = run(plugin, batch, lp, A)
        sign = "pos" if advantage > 0 else "neg"
        out |= {f"M_{sign}": plugin.mask(theta_old, A).int().tolist(), f"coef_{sign}": slope.tolist()}
    return out


def bapo(case: Case) -> Answer:
    step = case["params"].get("step")
    both = {} if step is None else {"low_step": step, "high_step": step}
    names = {
        "step_high": "high_step",
        "step_low": "low_step",
        "target_pos_over_neg": "pos_over_neg",
        "target_pos_share": "pos_share",
    }
    plugin = make("loss", "bapo", both | options(case, drop=("step",), **names))
    ratio = torch.tensor(case["input"]["ratio"], dtype=torch.float64)
    found = plugin.bounds(ratio, torch.tensor(case["input"]["advantages"], dtype=torch.float64))
    return {
        "clip_low": found.low,
        "clip_high": found.high,
        "pos_over_neg": found.pos_over_neg,
        "pos_share": found.pos_share,
    }


def r2vpo(case: Case) -> Answer:
    ratio = case["input"]["ratio"]
    plugin = make("loss", "r2vpo", options(case, **{"lambda": "lam"}))
    lp = torch.tensor(ratio, dtype=torch.float64).log().requires_grad_(True)
    A = torch.tensor(case["input"]["advantages"], dtype=torch.float64)
    terms, loss, slope = run(plugin, flat([Row(mask=[1] * len(ratio), old=[0.0] * len(ratio))]), lp, A)
    metrics = {name: float(value) for name, value in terms[0].metrics.items()}
    return {
        "token_loss": terms[0].loss.tolist(),
        "loss": loss.item(),
        "ratio_variance": metrics["ratio_variance"],
        "lambda_next": plugin.advance(plugin.start(), metrics)["lam"],
        "dloss_dlogp": slope.tolist(),
    }


def nft(case: Case) -> Answer:
    ratio, rate = case["input"]["ratio"], case["input"]["group_correct_rate"]
    known = options(case, drop=("clamp_q",))
    if "clamp_q" in case["params"]:
        known |= dict(zip(("q_low", "q_high"), case["params"]["clamp_q"], strict=True))
    # A group of so many members gives any share of right ones to nine digits.
    whole = 1_000_000_000
    batch = flat([Row(mask=[1] * len(ratio), old=[0.0] * len(ratio))])
    batch = _with_rate(batch, round(rate * whole), whole)
    out: Answer = {}
    for sign, advantage in (("pos", 1.0), ("neg", -1.0)):
        lp = torch.tensor(ratio, dtype=torch.float64).log().requires_grad_(True)
        plugin = make("loss", "nft", known | SUM | {"weight": "none", "coefficient": 1.0})
        terms, _, slope = run(plugin, batch, lp, torch.full_like(lp, advantage).detach())
        out |= {f"loss_{sign}": terms[0].loss.tolist(), f"dloss_dlogp_{sign}": slope.tolist()}
    weights = {"weight_norm2": "sqrt", "weight_norm1": "1-q"}
    return out | {
        key: make("loss", "nft", known | {"weight": name}).group_weight(rate) for key, name in weights.items()
    }


def _with_rate(batch: Batch, solved: int, peers: int) -> Batch:
    from dataclasses import replace

    size = batch.trajectories
    return replace(batch, peers=np.full(size, peers, np.int32), peers_solved=np.full(size, solved, np.int32))


def opmd(case: Case) -> Answer:
    given, known = case["input"], options(case, drop=("baseline",))
    baselines = case["params"].get("baseline", ["mean", "logavgexp"])
    of_rows = zip(given["rewards"], given["logp"], groups(case, len(given["rewards"])), strict=True)
    batch, out = flat([Row(reward=r, old=[lp], group=group) for r, lp, group in of_rows]), Answer()
    for baseline in [baselines] if isinstance(baselines, str) else baselines:
        advantage = make("credit", "opmd", {"baseline": baseline} | known).advantage(batch)
        lp = torch.tensor(given["logp"], dtype=torch.float64, requires_grad=True)
        terms, loss, _ = run(make("loss", "opmd", known), batch, lp, torch.tensor(advantage))
        out |= {f"adv_{baseline}": first_of(batch, advantage), f"loss_{baseline}": loss.item()}
        out[f"token_loss_{baseline}"] = terms[0].loss.tolist()
    return out


def chord(case: Case) -> Answer:
    given, params = case["input"], case["params"]
    scheduled = make("loss", "chord", options(case, drop=("mu_for_mix",)))
    mu = params.get("mu_for_mix", scheduled.peak)
    mixing = make("loss", "chord", {"peak": mu, "valley": mu})
    expert = given["sft_token_logp"]
    batch = flat([Row(old=[0.0]), Row(mask=[1] * len(expert), old=[0.0] * len(expert), policy=EXPERT)])
    # On-policy, a token's surrogate is -A: this one makes the policy's own part the case's.
    A = torch.tensor([-given["grpo_loss"], *[0.0] * len(expert)], dtype=torch.float64)
    lp = torch.tensor([0.0, *expert], dtype=torch.float64, requires_grad=True)
    terms, loss, _ = run(mixing, batch, lp, A)
    sft = aggregate(terms[1].loss, terms[1].mask, Axes.of(batch, CPU), terms[1].aggregation)
    return {
        "mu": [scheduled.mu(step) for step in given["steps"]],
        "phi": mixing.phi(lp[1:]).tolist(),
        "sft_loss_phi": sft.item(),
        "mixed": loss.item(),
    }


def critique(case: Case) -> Answer:
    p = torch.tensor(case["input"]["p"], dtype=torch.float64)
    plugin = make("loss", "critique", options(case) | SUM)
    batch = flat([Row(mask=[1] * len(p), old=[0.0] * len(p), policy=REFINED)])
    lp, A = p.log().requires_grad_(True), torch.tensor(case["input"]["advantage"], dtype=torch.float64)
    terms, _, slope = run(plugin, batch, lp, A.expand(len(p)).clone())
    return {"shaped": plugin.shaped(p).tolist(), "token_loss": terms[0].loss.tolist(), "dloss_dlogp": slope.tolist()}


def ahpo(case: Case) -> Answer:
    given, gates, losses = case["input"], [], []
    plugin = make("loss", "ahpo", options(case, R_hat="right"))
    for correct in given["group_correct"]:
        batch = _with_rate(flat([Row(old=[0.0]), Row(old=[0.0], policy=EXPERT)]), correct, max(correct, 1))
        lp = torch.tensor([0.0, -given["expert_nll"]], dtype=torch.float64, requires_grad=True)
        A = torch.tensor([-given["grpo_loss"], 0.0], dtype=torch.float64)
        losses.append(run(plugin, batch, lp, A)[1].item())
        gates.append(int(plugin.gate(correct)))
    return {"xi": gates, "loss": losses}


def g_opd(case: Case) -> Answer:
    given = case["input"]
    student = given["student_logp"]
    scores = {"ref_logprobs": given["ref_logp"], "teacher_logprobs": given["teacher_logp"]}
    batch = flat([Row(mask=[1] * len(student), old=student, scores=scores)])
    out: Answer = {}
    for lam in np.atleast_1d(case["params"].get("lambda", [1.0, 1.25])).tolist():
        advantage = make("credit", "g_opd", {"lam": lam}).advantage(batch).tolist()
        out |= {f"adv_lambda{lam:g}": advantage, f"adv_lambda{lam}": advantage}
    return out


def kl(case: Case) -> Answer:
    lp = torch.tensor(case["input"]["logp"], dtype=torch.float64, requires_grad=True)
    size = lp.numel()
    batch = flat([Row(mask=[1] * size, old=[0.0] * size, scores={"ref_logprobs": case["input"]["ref_logp"]})])
    return {
        name: run(make("loss", "kl", {"estimator": name} | SUM), batch, lp, torch.zeros(size))[0][0].loss.tolist()
        for name in ("k1", "k2", "k3")
    }


def reval(case: Case) -> Answer:
    names = ("V_theta_s1", "V_ref_s1", "sum_logp_theta", "sum_logp_ref", "reward")
    columns = [np.atleast_1d(case["input"][name]).astype(np.float64) for name in names]
    value, v_ref, lp_sum, ref_sum, rewards = columns
    batch = flat(
        [
            Row(reward=float(r), old=[0.0], scores={"ref_logprobs": [float(lp)], "ref_logsumexp": [float(v)]})
            for r, lp, v in zip(rewards, ref_sum, v_ref, strict=True)
        ]
    )
    plugin = make("loss", "reval", options(case))
    state = LossState(logsumexp=torch.tensor(value, requires_grad=True))
    lp = torch.tensor(lp_sum, requires_grad=True)
    residual, _ = plugin.residuals(lp, batch, state)
    _, loss, _ = run(plugin, batch, lp, torch.zeros_like(lp), state)
    one = np.ndim(case["input"]["reward"]) == 0
    return {"residual": residual.item() if one else residual.tolist(), "loss": loss.item()}


def correction(name: str) -> Callable[[Case], Answer]:
    def adapter(case: Case) -> Answer:
        given = case["input"]["ratio_train_over_rollout"]
        masks = table(case["input"].get("mask", [[1] * len(row) for row in table(given)]))
        rows = [
            Row(mask=mask, old=[log(r) for r in ratios], rollout=[0.0] * len(mask))
            for mask, ratios in zip(masks, table(given), strict=True)
        ]
        known = options(case, drop=("mode",), batch_normalize="normalise")
        if "mode" in case["params"]:
            known |= dict(zip(("over", "measure"), case["params"]["mode"].rsplit("_", 1), strict=True))
        batch, plugin = flat(rows), make("correction", name, known)
        weights, keep = plugin.weights(batch)
        out: Answer = {
            "weights": shaped_like(given, per_row(batch, np.where(batch.action_mask, weights, 0.0))),
            "keep": shaped_like(given, per_row(batch, keep.astype(int))),
        }
        if hasattr(plugin, "ratios"):
            rows_raw = per_row(batch, plugin.ratios(batch))
            # One of a sequence: that of any action token.
            one = [[r for r, m in zip(*pair, strict=True) if m] or [1.0] for pair in zip(rows_raw, masks, strict=True)]
            raw: list[Any] = [row[0] for row in one] if plugin.level == "sequence" else rows_raw
            out["raw"] = raw if isinstance(given[0], list) else raw[0]
        return out

    return adapter


def opsm(case: Case) -> Answer:
    from dataclasses import replace

    given = case["input"]
    masks = given.get("mask", [[1] * len(row) for row in given["logp"]])
    rows = [
        Row(mask=mask, old=lp, rollout=mu)
        for mask, lp, mu in zip(masks, given["logp"], given["sampling_logp"], strict=True)
    ]
    batch = flat(rows)
    advantages = np.asarray(given["advantages"], np.float64)[batch.trajectory_of_token]
    batch = replace(batch, advantages=np.where(batch.action_mask, advantages, 0.0))
    _, keep = make("correction", "opsm", options(case)).weights(batch)
    return {"keep": [int(keep[batch.sample_of_token == s].all()) for s in range(batch.samples)]}


def dump(case: Case) -> Answer:
    plugin, given = make("sampler", "dump", options(case)), case["input"]
    means, counts = given["mean_abs_adv"], given["count"]
    return {"ucb": plugin.ucb(means, counts).tolist(), "weights": plugin.shares(means, counts).tolist()}


def limr(case: Case) -> Answer:
    rewards = case["input"]["reward_trajectories"]
    plugin = make("sampler", "limr", options(case))
    scores = plugin.scores(rewards, case["input"].get("avg"))
    return {"score": scores.tolist(), "keep": (scores >= plugin.theta).tolist()}


def scaling_inter(case: Case) -> Answer:
    known = options(case, steps_scaling_inter="updates_per_stage")

    def horizon(step: int, every: Mapping[str, int]) -> int:
        return int(make("rollout", "scaling_inter", {**known, **every}).horizon(step))

    out: Answer = {"max_turns": [horizon(step, {}) for step in case["input"].get("steps", [])]}
    for key, rows in case["expected"].items():
        if found := re.fullmatch(r"at_S(\d+)", key):
            out[key] = {step: horizon(int(step), {"updates_per_stage": int(found.group(1))}) for step in rows}
    return out


def pope(case: Case) -> Answer:
    plugin = make("rollout", "pope", options(case, prefix_fraction="fraction"))
    rates = case["input"]["pass_at_k"]
    tokens = np.broadcast_to(np.asarray(case["input"]["oracle_tokens"]), len(rates)).tolist()
    prefixes = [plugin.prefix(size, rate) for size, rate in zip(tokens, rates, strict=True)]
    # The prefix is prompt: tokens that nobody sampled train in no filter.
    size = max(prefixes, default=0)
    batch = flat([Row(mask=[0] * size + [1])])
    in_loss = make("filter", "none", {}).apply(batch).in_loss
    return {
        "guided": [plugin.guided(rate) for rate in rates],
        "prefix_tokens": prefixes,
        "loss_on_prefix": bool(in_loss[:size].any()),
    }


def arpo(case: Case) -> Answer:
    plugin, given = make("rollout", "arpo", options(case)), case["input"]
    after = given["H_after_tool"]
    return {
        "P": [plugin.probability(given["H_root"], value) for value in after],
        "branch": [plugin.branches(given["H_root"], value, 0) for value in after],
    }


def aepo_rollout(case: Case) -> Answer:
    given, params = case["input"], case["params"]
    if "H_tool_mean" in given:
        plugin, k = make("rollout", "aepo", options(case, drop=("k",), beta="balance")), params["k"]
        means = np.atleast_1d(given["H_tool_mean"]).tolist()
        answer = {
            "m_float": [plugin.roots_exact(k, given["H_root"], mean) for mean in means],
            "m": [plugin.roots(k, given["H_root"], mean) for mean in means],
        }
        answer["branches"] = [k - m for m in answer["m"]]
        return answer if isinstance(given["H_tool_mean"], list) else {key: row[0] for key, row in answer.items()}
    plugin = make("rollout", "aepo", {"penalty": slope_of(params["p_hat"])} if "p_hat" in params else {})
    return {"P": [plugin.damped(given["P_base"], run_length) for run_length in given["consecutive"]]}


def slope_of(form: str) -> float:
    """That of a line in `l` held below 1: min(1, 0.25*l), min(l/4, 1)."""
    number = r"(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?"
    line = rf"(?:({number})\*)?l(?:\*({number}))?(?:/({number}))?"
    text = re.sub(r"min\((.*),1(?:\.0*)?\)", r"min(1,\1)", form.replace(" ", ""))
    found = re.fullmatch(rf"min\(1(?:\.0*)?,{line}\)", text)
    assert found, form
    before, after, under = (float(one or 1.0) for one in found.groups())
    return before * after / under


def overlong(case: Case) -> Answer:
    plugin = make("shaping", "soft_overlong", options(case, max_len="max_length"))
    batch = flat([Row(mask=[1] * length) for length in case["input"]["lengths"]])
    return {"penalty": plugin.component(batch).tolist()}


def rlcr(case: Case) -> Answer:
    pairs = list(zip(case["input"]["correct"], case["input"]["confidence"], strict=True))
    paper, code = (make("shaping", "rlcr", options(case) | {"form": form}) for form in ("paper", "code"))
    bad = [code.reward(c, q, formatted=False) for c, q in pairs]
    return {
        "paper": [paper.reward(c, q) for c, q in pairs],
        "code_format_ok": [code.reward(c, q) for c, q in pairs],
        "code_format_bad": bad if isinstance(case["expected"].get("code_format_bad"), list) else max(bad, key=abs),
    }


def vision_zero(case: Case) -> Answer:
    given, known = case["input"], options(case)
    votes, out = given["votes"], Answer()
    # One spy among the civilians.
    players = given["N"] if "N" in given else given["n_civilians"] + 1
    if "detective" in votes:
        for caught, name in ((True, "caught"), (False, "missed")):
            out[f"detective_{name}"] = detective_reward(votes["detective"], players, caught=caught, **known)
    return out | ({"spy": spy_reward(votes["spy"], players)} if "spy" in votes else {})


ADAPTERS: dict[tuple[str, str], Callable[[Case], Answer]] = {
    ("trajectory_filter", "simpletir"): simpletir,
    ("trajectory_filter", "simpletir+grpo"): void_and_grpo,
    ("trajectory_filter", "dapo_dynamic_sampling"): dapo_dynamic,
    **{("credit", name): whole_trajectories(name) for name in ("asymre", "dr_grpo", "grpo", "rloo")},
    **{("credit", name): otb("otb") for name in ("optimal_token_baseline", "otb")},
    **{("credit", name): otb("tir_otb") for name in ("tir_optimal_token_baseline", "tir_otb")},
    ("credit", "gigpo"): gigpo,
    ("credit", "mt_grpo"): mt_grpo,
    ("credit", "flow_grpo"): flow_grpo,
    ("credit", "thor"): thor,
    ("credit", "aepo"): aepo_credit,
    ("policy_loss", "ppo_clip"): ppo_clip,
    ("policy_loss", "aggregate"): aggregation,
    ("policy_loss", "gspo"): gspo("gspo"),
    ("policy_loss", "gspo_token"): gspo("gspo_token"),
    ("policy_loss", "sapo"): sapo,
    ("policy_loss", "cispo"): cispo,
    ("policy_loss", "minirl"): minirl,
    ("policy_loss", "bapo"): bapo,
    ("policy_loss", "r2vpo"): r2vpo,
    ("policy_loss", "nft"): nft,
    ("policy_loss", "opmd"): opmd,
    ("policy_loss", "chord"): chord,
    ("policy_loss", "critique_grpo"): critique,
    ("policy_loss", "ahpo"): ahpo,
    ("policy_loss", "g_opd"): g_opd,
    ("policy_loss", "kl"): kl,
    ("policy_loss", "reval"): reval,
    **{("off_policy", name): correction(name) for name in ("icepop", "mis", "rejection", "tis")},
    ("off_policy", "opsm"): opsm,
    ("curriculum", "dump"): dump,
    ("curriculum", "limr"): limr,
    ("rollout", "scaling_inter"): scaling_inter,
    ("rollout", "pope"): pope,
    ("rollout", "arpo"): arpo,
    ("rollout", "aepo"): aepo_rollout,
    ("reward", "soft_overlong"): overlong,
    ("reward", "rlcr"): rlcr,
    ("reward", "vision_zero"): vision_zero,
}
