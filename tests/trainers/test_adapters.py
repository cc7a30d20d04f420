"""Adapters: what they add, what is frozen, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agenthub.errors import UserError
from agenthub.trainers.adapters import LoraConfig, LowRank, add_adapters, has_adapters, merged_state, write_adapter
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.learner import Learner
from agenthub.trainers.losses import PPO
from agenthub.trainers.sync.directory import full_state
from agenthub.trainers.sync.embedded import EmbeddedSync
from tests.trainers.fakes import FakePolicy, batch_of, tiny_model

IDS = torch.arange(12).reshape(2, 6)


def adapted() -> torch.nn.Module:
    """A model whose adapters are not 0."""
    torch.manual_seed(5)
    model: torch.nn.Module = add_adapters(tiny_model(), LoraConfig(rank=3, alpha=6.0, targets=("q_proj", "down_proj")))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LowRank):
                layer.lora_B.normal_(std=0.1)
    return model


@torch.no_grad()
def test_new_adapters_change_nothing_and_trained_ones_equal_their_merge() -> None:
    plain = tiny_model()
    assert torch.equal(add_adapters(tiny_model(), LoraConfig())(IDS).logits, plain(IDS).logits)
    model = adapted()
    merged = tiny_model()
    merged.load_state_dict(merged_state(model))
    torch.testing.assert_close(model(IDS).logits, merged(IDS).logits, atol=1e-5, rtol=1e-5)
    assert (model(IDS).logits - plain(IDS).logits).abs().max() > 1e-3
    assert merged_state(plain).keys() == plain.state_dict().keys()


def test_only_adapters_train_and_the_plain_weights_keep_their_names() -> None:
    model = adapted()
    assert has_adapters(model) and not has_adapters(tiny_model())
    trained = {name.rpartition(".")[2] for name, one in model.named_parameters() if one.requires_grad}
    assert trained == {"lora_A", "lora_B"}
    state = full_state(model, untie=True)
    assert state.keys() == tiny_model().state_dict().keys()
    for name, value in tiny_model().state_dict().items():
        assert torch.equal(state[name], value)


def test_an_update_moves_the_adapters_and_nothing_else() -> None:
    model = add_adapters(tiny_model(), LoraConfig(rank=2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = batch_of([1.0, 0.0, 1.0, 0.0])
    learner = Learner(model, PPO(), OptimConfig(lr=0.01))
    learner.update(batch, np.where(np.arange(batch.tokens) % 2, 1.0, -1.0), seed=0)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and {name.rpartition(".")[2] for name in moved} <= {"lora_A", "lora_B"}


def test_an_adapter_is_written_as_peft_lays_it_out(tmp_path: Path) -> None:
    model = adapted()
    write_adapter(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 6.0, ["down_proj", "q_proj"])
    state = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(state) == 2 * 2 * 2
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    assert isinstance(layer, LowRank)
    assert torch.equal(state["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"], layer.lora_B)


def test_what_has_no_adapter_or_no_such_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no adapter to serve; set policy\.lora"):
        write_adapter(tiny_model(), tmp_path / "adapter")
    with pytest.raises(UserError, match="no linear layer 'q_prj'; did you mean 'q_proj'"):
        add_adapters(tiny_model(), LoraConfig(targets=("q_prj",)))


async def test_a_policy_in_this_process_serves_the_merge() -> None:
    policy, model = FakePolicy(), adapted()
    assert await EmbeddedSync(policy, bound=1e-3).push(model, 1) < 1e-4
