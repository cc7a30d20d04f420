"""The learner in bf16: packed attention by the kernel, parity with float32, and what checkpoints of blocks save."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agenthub.records import ints
from agenthub.trainers import attention
from agenthub.trainers.attention import layout_of, varlen_kernel
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.credit import GRPO
from agenthub.trainers.door import Door
from agenthub.trainers.hardware import set_up
from agenthub.trainers.learner import Learner
from agenthub.trainers.losses import PPO
from agenthub.trainers.packing import packs
from agenthub.trainers.ranks import Ranks
from agenthub.trainers.sharded import checkpoint_activations, gather, spread
from agenthub.trainers.slim import slim
from tests.trainers.fakes import VOCABULARY, mixed_batch

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


def model_on(device: torch.device, *, layers: int = 2) -> Any:
    """A Qwen2 with heads of 64, which every kernel takes."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=512,
        tie_word_embeddings=True,
        use_cache=False,
    )
    with device:
        return Qwen2ForCausalLM(config).eval()


def learner(device: torch.device, ranks: Ranks, *, half: bool, checkpoints: bool = False, layers: int = 2) -> Learner:
    """One of the model, sharded over this process alone."""
    model = model_on(device, layers=layers)
    door = Door(model, dtype=torch.bfloat16 if half else torch.float32)
    if checkpoints:
        checkpoint_activations(model)
    spread(door, ranks)
    return Learner(door, PPO(), OptimConfig(lr=1e-3, minibatches=1), ranks=ranks)


@pytest.mark.parametrize("share", [True, False])
def test_the_kernel_gives_the_blocks_attention_and_its_gradient(device: torch.device, share: bool) -> None:
    kernel = varlen_kernel(device, torch.bfloat16)
    if kernel is None:
        pytest.skip("this torch has no attention for rows of many lengths on this device")
    rng = np.random.default_rng(0)
    runs = [ints([*range(64 if share else 0), *rng.integers(0, 999, length)]) for length in (30, 190, 64, 1)]
    (pack,) = packs(runs, max_tokens=10_000)
    torch.manual_seed(0)
    sides = [torch.randn(pack.ids.size, heads, 64, device=device, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    found: list[list[Tensor]] = []
    for varlen in (True, False):
        given = [side.clone().requires_grad_(True) for side in sides]
        layout = layout_of(pack, device, varlen=varlen)
        run = (
            attention._by_lengths(kernel, given, layout, 0.125)
            if varlen
            else attention._by_blocks(given, layout, 0.125)
        )
        run.float().square().sum().backward()  # type: ignore[no-untyped-call]
        found.append([run.detach(), *(side.grad for side in given if side.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.float(), other.float(), atol=3e-2, rtol=3e-2)


def test_updates_in_bf16_follow_those_in_float32(device: torch.device, ranks: Ranks) -> None:
    batch = mixed_batch()
    rows, lps = [], []
    for half in (False, True):
        made = learner(device, ranks, half=half)
        lps.append(made.logprobs(batch, batch.action_mask))
        rows.append([made.update(batch, GRPO().advantage(batch), seed=number).grad_norm for number in range(3)])
        assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}
    assert float(np.abs(lps[0] - lps[1]).mean()) <= 0.02
    assert rows[1] == pytest.approx(rows[0], rel=0.1)


def test_gathered_weights_are_those_that_were_sharded(device: torch.device, ranks: Ranks) -> None:
    made, whole = learner(device, ranks, half=True), model_on(device)
    before = copy.deepcopy(whole.state_dict())
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.zero_()
    gather(made.model, whole)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, before[name])


def test_norms_and_gated_layers_in_one_step_change_no_gradient_and_keep_less(device: torch.device) -> None:
    ids = torch.arange(512, device=device)[None] % VOCABULARY
    rows: list[list[Tensor]] = []
    kept: list[int] = []
    for once in (False, True):
        model = model_on(device, layers=4).to(torch.bfloat16)
        assert not once or slim(model) == 13
        before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        logits = model(input_ids=ids).logits
        kept.append(torch.cuda.memory_allocated() - before if device.type == "cuda" else 1 - once)
        logits.float().square().mean().backward()
        rows.append([parameter.grad.float() for parameter in model.parameters() if parameter.grad is not None])
    for one, other in zip(*rows, strict=True):
        assert float((one - other).norm()) <= 0.03 * float(one.norm())
    assert kept[1] < 0.9 * kept[0]


def test_a_deterministic_update_runs_and_repeats(device: torch.device, ranks: Ranks) -> None:
    batch = mixed_batch()
    ends = []
    set_up(deterministic=True)
    try:
        for _ in range(2):
            made = learner(device, ranks, half=True)
            made.update(batch, GRPO().advantage(batch), seed=0)
            whole = model_on(device)
            gather(made.model, whole)
            ends.append(whole.state_dict())
    finally:
        set_up(deterministic=False)
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name])


def test_checkpoints_of_blocks_change_no_gradient_and_hold_less(device: torch.device, ranks: Ranks) -> None:
    batch = mixed_batch()
    norms, peaks = [], []
    for checkpoints in (False, True):
        made = learner(device, ranks, half=True, checkpoints=checkpoints, layers=12)
        made.gradient(batch, GRPO().advantage(batch))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        # Sharded modules hold each other, so those of the last round may still be there.
        before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        norms.append(made.gradient(batch, GRPO().advantage(batch)).norm)
        peaks.append(torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 1 - checkpoints)
    assert norms[1] == pytest.approx(norms[0], rel=0.02)
    assert peaks[1] < peaks[0]
