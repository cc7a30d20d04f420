"""Chunked scores: the full ones, with their gradients, and never all logits at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from agenthub.trainers.logits import Scores, token_logits


def parts(rows: int, vocabulary: int, *, bias: bool, dtype: torch.dtype = torch.float32) -> list[Any]:
    """(hidden, weight, bias, targets) with gradients where they have one."""
    torch.manual_seed(rows * 31 + vocabulary)
    hidden = torch.randn(rows, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, 6, dtype=dtype, requires_grad=True)
    offset = torch.randn(vocabulary, dtype=dtype, requires_grad=True) if bias else None
    return [hidden, weight, offset, torch.randint(vocabulary, (rows,))]


def full(given: list[Any], temperature: float) -> Scores:
    """All logits at once, as the formulas say."""
    hidden, weight, bias, targets = given
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    logs = torch.log_softmax(logits, dim=-1)
    return Scores(
        lp=logs.gather(1, targets[:, None])[:, 0],
        logsumexp=torch.logsumexp(logits, dim=-1),
        entropy=-(logs.exp() * logs).sum(dim=-1),
        sum_pi_sq=(logs.exp() ** 2).sum(dim=-1),
    )


def slopes(scores: Scores, given: list[Any]) -> list[Tensor]:
    """Gradients of a weighting of both differentiable scores."""
    weights = torch.linspace(-1.0, 2.0, scores.lp.numel(), dtype=scores.lp.dtype)
    loss = (weights * scores.lp).sum() + (weights.flip(0) * scores.logsumexp).sum()
    return list(torch.autograd.grad(loss, [one for one in given[:3] if one is not None]))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    vocabulary=st.integers(2, 40),
    elements=st.integers(1, 300),
    temperature=st.floats(0.3, 3.0),
    bias=st.booleans(),
)
def test_chunks_give_the_full_scores_and_gradients(
    rows: int, vocabulary: int, elements: int, temperature: float, bias: bool
) -> None:
    given = parts(rows, vocabulary, bias=bias)
    got = token_logits(*given, temperature=temperature, elements=elements)
    expected = full(given, temperature)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    for one, other in zip(slopes(got, given), slopes(expected, given), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("elements", [1, 24, 10_000])
def test_finite_differences_agree_in_float64(elements: int) -> None:
    given = parts(5, 8, bias=True, dtype=torch.float64)

    def both(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        got = token_logits(hidden, weight, bias, given[3], temperature=0.7, elements=elements)
        return got.lp, got.logsumexp

    assert torch.autograd.gradcheck(both, tuple(given[:3]))


def test_no_row_at_all_gives_no_score_and_a_gradient_of_zero() -> None:
    hidden, weight, _, targets = parts(0, 7, bias=False)
    got = token_logits(hidden, weight, None, targets, temperature=1.0, elements=10)
    torch.autograd.backward([got.lp], [torch.zeros(0)])
    assert got.lp.shape == (0,)
    assert weight.grad is not None
    assert not weight.grad.any()


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the most elements of any tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def test_no_more_logits_than_asked_for_are_held_at_once() -> None:
    given = parts(200, 500, bias=False)
    with Largest() as chunked:
        slopes(token_logits(*given, temperature=1.0, elements=5_000), given)
    with Largest() as whole:
        slopes(full(given, 1.0), given)
    assert chunked.elements <= 5_000
    assert whole.elements == 200 * 500
