"""Blocks of a transformer that keep less for the backward pass, in fewer kernels.

transformers computes a norm and a gated layer in steps. In half precision each norm keeps a float32 copy of what goes
in and two more of what comes out, each gated layer its activation beside what that is computed from: a third of what a
block keeps, and most of the time that is not spent in products of matrices. Here both are one step.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

__all__ = ["slim"]

_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}

Forward = Callable[[Any, Tensor], Tensor]


def slim(model: Any) -> int:
    """Let norms and gated layers compute in one step, in place, where that gives what they give; how many do.

    Names of parameters stay as they are.
    """
    width = int(model.config.get_text_config().hidden_size)
    fits: dict[type, bool] = {}
    count = 0
    for module in model.modules():
        forward = _forward_for(module)
        if forward is None:
            continue
        kind = type(module)
        if kind not in fits:
            fits[kind] = _alike(module, forward, width)
        if fits[kind]:
            module.forward = MethodType(forward, module)
            count += 1
    return count


def _forward_for(module: Any) -> Forward | None:
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        return _norm
    return _gated if {name for name, _ in module.named_children()} == _GATED else None


@torch.no_grad()
def _alike(module: Any, forward: Forward, width: int) -> bool:
    """Is it the same on some numbers? A norm that adds one to its weight, say, is not."""
    weight = next(module.parameters())
    if weight.device.type == "meta":
        return True
    size = weight.numel() if forward is _norm else width
    rows = torch.linspace(-2.0, 3.0, 2 * size, device=weight.device).to(weight.dtype).reshape(2, size)
    wanted, found = module(rows).float(), forward(module, rows).float()
    # A rounding more or less.
    bound = 4 * torch.finfo(weight.dtype).eps * float(wanted.abs().max())
    return bool((wanted - found).abs().max() <= bound)


def _norm(module: Any, states: Tensor) -> Tensor:
    return rms_norm(states, module.weight.shape, module.weight, module.variance_epsilon)


def _gated(module: Any, states: Tensor) -> Tensor:
    product = _Gate.apply(module.gate_proj(states), module.up_proj(states))  # type: ignore[no-untyped-call]
    out: Tensor = module.down_proj(product)
    return out


class _Gate(torch.autograd.Function):
    """silu(gate) up, from which the backward pass computes silu(gate) again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (slope,) = slopes
        return torch.ops.aten.silu_backward(slope * up, gate), slope * silu(gate)
