"""Norms and gated layers in one step: the same numbers and gradients, less kept, and nothing else replaced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agenthub.trainers.adapters import LoraConfig, add_adapters
from agenthub.trainers.slim import slim
from tests.trainers.fakes import VOCABULARY, tiny_model

IDS = torch.arange(20).reshape(2, 10) % VOCABULARY


class Kept:
    """What is kept for the backward pass while it is open, each tensor once."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.tensors[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def __enter__(self) -> Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


def run(model: Any) -> tuple[Tensor, list[Tensor]]:
    """(logits, gradients)"""
    logits = model(IDS).logits
    logits.float().square().mean().backward()
    return logits.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_logits_and_gradients_are_those_of_the_steps(dtype: torch.dtype, off: float) -> None:
    plain, one = tiny_model().to(dtype), tiny_model().to(dtype)
    # Two norms and a gated layer in each of two blocks, two norms inside its attention, and the last norm.
    assert slim(one) == 11
    (wanted, slopes), (found, others) = run(plain), run(one)
    torch.testing.assert_close(found, wanted, atol=off * float(wanted.abs().max()), rtol=0.0)
    assert len(slopes) == len(others)
    for slope, other in zip(slopes, others, strict=True):
        torch.testing.assert_close(other, slope, atol=off * float(slope.abs().max()) + 1e-8, rtol=0.0)


def test_a_gated_layer_keeps_no_activation_beside_what_it_is_of() -> None:
    model = tiny_model()
    layer, width = model.model.layers[0].mlp, model.config.intermediate_size
    states = torch.randn(7, model.config.hidden_size, requires_grad=True)
    sizes = []
    for _ in range(2):
        with Kept() as kept:
            layer(states)
        sizes.append([tensor.numel() for tensor in kept.tensors.values()].count(7 * width))
        slim(model)
    assert sizes == [4, 3]


def test_adapters_inside_a_gated_layer_still_take_part() -> None:
    model = add_adapters(tiny_model(), LoraConfig(rank=2))
    assert slim(model) == 11
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.fill_(0.1)
    model(IDS).logits.square().mean().backward()
    slopes = [parameter.grad for name, parameter in model.named_parameters() if name.endswith("lora_A")]
    assert slopes
    assert all(slope is not None and bool(slope.any()) for slope in slopes)


def test_a_norm_that_computes_something_else_is_left_alone() -> None:
    class OddRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(16))
            self.variance_epsilon = 1e-6

        def forward(self, states: Tensor) -> Tensor:
            return torch.nn.functional.rms_norm(states, (16,), 1 + self.weight, self.variance_epsilon)

    model = tiny_model()
    model.model.norm = OddRMSNorm()
    assert slim(model) == 10
    assert "forward" not in vars(model.model.norm)
