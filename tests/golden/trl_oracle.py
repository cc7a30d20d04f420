"""Run by the peer's own interpreter: TRL's GRPO loss, unbound, on cases from standard input.

A case is `{loss_type, level, beta, mask, lp, old, ref, rollout, A}`, its answer `{loss, slope, keep}`.
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from trl import GRPOTrainer
from trl.rewards import get_soft_overlong_punishment

LENGTH, LOW, HIGH, DELTA, THRESHOLD = 32, 0.2, 0.28, 3.0, 0.1


def answer(case: dict[str, Any]) -> dict[str, Any]:
    lp = torch.tensor(case["lp"], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor(case["mask"], dtype=torch.float64)
    A, old, ref, rollout = (torch.tensor(case[name], dtype=torch.float64) for name in ("A", "old", "ref", "rollout"))
    reach = SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1)
    config = SimpleNamespace(
        use_bias_correction_kl=False, delta=None, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05
    )
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (lp, torch.zeros_like(lp), None),
        _entropy_bonus_enabled=False,
        _metrics={"eval": defaultdict(list)},
        accelerator=reach,
        args=config,
        aux_loss_enabled=False,
        beta=case["beta"],
        epsilon_high=5.0 if case["loss_type"] == "cispo" else HIGH,
        epsilon_low=LOW,
        importance_sampling_level=case["level"],
        loss_type=case["loss_type"],
        max_completion_length=LENGTH,
        model=SimpleNamespace(training=False),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )
    ids = torch.zeros_like(mask, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": A,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(stub, None, inputs)
    (slope,) = torch.autograd.grad(loss, lp)
    keep = GRPOTrainer.get_off_policy_mask(A[:, None], old, rollout, mask, THRESHOLD)
    return {"loss": loss.item(), "slope": slope.tolist(), "keep": keep[:, 0].tolist()}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    soft = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    lengths = soft(completion_ids=[[0] * length for length in asked["lengths"]])
    json.dump({"cases": [answer(case) for case in asked["cases"]], "overlong": lengths}, sys.stdout)
