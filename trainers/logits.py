"""Log-probabilities of chosen tokens from hidden states, without the logits of all of them in memory at once.

The output layer is applied to some rows at a time; the backward pass computes those rows' logits again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Scores", "token_logits"]


class Scores(NamedTuple):
    """Each f32[M] (f64 where the model is); a named tuple, so that hooks of torch find the tensors."""

    lp: Tensor
    """Log-probability of the target, with gradient."""
    logsumexp: Tensor
    """Of the logits over the temperature, with gradient."""
    entropy: Tensor
    """Nats; detached."""
    sum_pi_sq: Tensor
    """Sum over the vocabulary of squared probabilities; detached."""


def token_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, temperature: float, elements: int
) -> Scores:
    """Score M targets; everything is of the logits over the temperature.

    lp_m = z_m[target] - logsumexp z_m, z = (hidden weight^T + bias) / temperature.
    d lp_m / d z_m = onehot(target) - softmax z_m; d logsumexp_m / d z_m = softmax z_m.

    Args:
        hidden: [M, width]. weight: [V, width]. bias: [V]. targets: i64[M].
        elements: most logits that are held at once.
    """
    rows = max(1, elements // weight.shape[0])
    return Scores(*_Chunked.apply(hidden, weight, bias, targets, temperature, rows))  # type: ignore[no-untyped-call]


class _Chunked(torch.autograd.Function):
    """The forward and backward pass, `rows` rows at a time; logits that fit one chunk are kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float, rows: int
    ) -> tuple[Tensor, ...]:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        lp, logsumexp, entropy, squares = (hidden.new_zeros(hidden.shape[0], dtype=exact) for _ in range(4))
        kept = None
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logs = torch.nn.functional.linear(hidden[part], weight, bias).to(exact).div_(temperature)
            torch.logsumexp(logs, dim=-1, out=logsumexp[part])
            logs -= logsumexp[part, None]
            lp[part] = logs.gather(1, targets[part, None])[:, 0]
            pi = logs.exp()
            squares[part] = torch.linalg.vector_norm(pi, dim=-1).square_()
            entropy[part] = logs.mul_(pi).sum(dim=-1).neg_()
            kept = pi if hidden.shape[0] <= rows else None
        ctx.save_for_backward(hidden, weight, bias, targets, logsumexp, kept)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.mark_non_differentiable(entropy, squares)
        return lp, logsumexp, entropy, squares

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, logsumexp, kept = ctx.saved_tensors
        of_lp, of_sum = slopes[0], slopes[1]
        exact = logsumexp.dtype
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight, dtype=exact) if ctx.needs_input_grad[1] else None
        to_bias = torch.zeros_like(bias, dtype=exact) if ctx.needs_input_grad[2] else None
        for start in range(0, hidden.shape[0], ctx.rows):
            part = slice(start, start + ctx.rows)
            pi = kept
            if pi is None:
                logits = torch.nn.functional.linear(hidden[part], weight, bias).to(exact).div_(ctx.temperature)
                pi = logits.sub_(logsumexp[part, None]).exp_()
            slope = pi * (of_sum[part] - of_lp[part])[:, None]
            slope.scatter_add_(1, targets[part, None], of_lp[part, None])
            slope = slope.div_(ctx.temperature)
            if to_bias is not None:
                to_bias += slope.sum(dim=0)
            slope = slope.to(hidden.dtype)
            torch.mm(slope, weight, out=to_hidden[part])
            if to_weight is not None and slope.dtype == exact:
                to_weight.addmm_(slope.t(), hidden[part])
            elif to_weight is not None:
                to_weight += slope.t() @ hidden[part]
        return (
            to_hidden,
            None if to_weight is None else to_weight.to(weight.dtype),
            None if to_bias is None else to_bias.to(weight.dtype),
            None,
            None,
            None,
        )
