"""LoRA adapters: a model whose own weights are frozen, and a pair of low-rank matrices beside some of its layers.

Source: Hu et al. 2021, arXiv 2106.09685, section 4.1: W x + (alpha / r) B A x; A starts at random and B at 0.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from agenthub.config import ConfigModel
from agenthub.errors import UserError, nearest
from agenthub.trainers.sync.weights import plain_name

__all__ = ["LoraConfig", "LowRank", "add_adapters", "has_adapters", "merged", "merged_state", "write_adapter"]


class LoraConfig(ConfigModel):
    """Which layers get an adapter, and of what rank."""

    rank: int = Field(default=8, ge=1, le=512)
    alpha: float = Field(default=16.0, gt=0.0, description="the adapter's output is multiplied by alpha / rank")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="last part of the names of linear layers",
    )


class LowRank(nn.Module):
    """A frozen linear layer and its adapter."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.rank, self.alpha = base.requires_grad_(False), rank, alpha
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """f[..., in] to f[..., out]."""
        out: Tensor = self.base(x) + (x @ self.lora_A.T) @ self.lora_B.T * (self.alpha / self.rank)
        return out


def add_adapters(model: Any, config: LoraConfig) -> Any:
    """Freeze a model and put adapters beside its target layers; the same model, changed in place.

    Raises:
        UserError: a target names no linear layer of the model.
    """
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    known = {name.rpartition(".")[2] for name in found}
    for target in config.targets:
        if target not in known:
            raise UserError(f"policy.lora.targets: the model has no linear layer {target!r}{nearest(target, known)}")
    model.requires_grad_(False)
    for name, layer in found.items():
        parent, _, last = name.rpartition(".")
        if last in config.targets:
            setattr(model.get_submodule(parent), last, LowRank(layer, config.rank, config.alpha))
    return model


def has_adapters(model: Any) -> bool:
    """Does the model train adapters alone?"""
    return any(isinstance(layer, LowRank) for layer in model.modules())


def merged_state(model: Any) -> dict[str, Tensor]:
    """The state of the plain model with every adapter in its layer's weight; shared with the model where there is none.

    A policy in this process serves it: to a server go the adapters alone.
    """
    scale = next((layer.alpha / layer.rank for layer in model.modules() if isinstance(layer, LowRank)), 0.0)
    return merged(model.state_dict(), scale)


@torch.no_grad()
def merged(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A model's state as that of the plain model.

    Args:
        scale: alpha / rank.
    """
    plain = {name: value for key, value in state.items() if (name := plain_name(key)) is not None}
    for key, left in state.items():
        layer, _, last = key.rpartition(".")
        if last == "lora_B":
            name = f"{plain_name(layer)}.weight"
            plain[name] = plain[name] + left @ state[f"{layer}.lora_A"] * scale
    return plain


def write_adapter(model: Any, folder: Path) -> Path:
    """Write the adapters as PEFT lays them out, whole or not at all; the directory.

    Sharded ones are gathered, which every rank must take part in.

    Raises:
        UserError: the model has none.
        OSError: the disk is full or not writable.
    """
    from safetensors.torch import save_file

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LowRank)]
    if not layers:
        raise UserError("the model has no adapter to serve; set policy.lora")
    state = {
        f"base_model.model.{plain_name(name)}.{part}.weight": _whole(getattr(layer, part))
        for name, layer in layers
        for part in ("lora_A", "lora_B")
    }
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(state, partial / "adapter_model.safetensors")
    config = _peft_config(layers[0][1], sorted({name.rpartition(".")[2] for name, _ in layers}))
    (partial / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _peft_config(layer: LowRank, targets: Sequence[str]) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": layer.rank,
        "lora_alpha": layer.alpha,
        "target_modules": list(targets),
        "bias": "none",
    }


def _whole(parameter: Tensor) -> Tensor:
    whole = parameter.detach()
    whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
    return whole.to("cpu").contiguous()
