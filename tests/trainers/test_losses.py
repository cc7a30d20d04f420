"""Loss and aggregation, against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agenthub.trainers.aggregate import Axes, aggregate
from agenthub.trainers.losses import PPO, clipped_surrogate, kl_estimate

RATIO = [0.5, 0.9, 1.1, 1.25, 1.5, 3.5]


@pytest.mark.parametrize(
    ("advantage", "loss", "slope"),
    [
        (1.0, [-0.5, -0.9, -1.1, -1.25, -1.28, -1.28], [-0.5, -0.9, -1.1, -1.25, 0.0, 0.0]),
        (-1.0, [0.8, 0.9, 1.1, 1.25, 1.5, 3.0], [0.0, 0.9, 1.1, 1.25, 1.5, 0.0]),
    ],
)
def test_the_two_bounds_and_the_dual_clip(advantage: float, loss: list[float], slope: list[float]) -> None:
    lp = torch.tensor(RATIO, dtype=torch.float64).log().requires_grad_(True)
    A = torch.full_like(lp, advantage)
    got = clipped_surrogate(lp, torch.zeros_like(lp), A, clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    (gradient,) = torch.autograd.grad(got.sum(), lp)
    assert got.tolist() == pytest.approx(loss)
    assert gradient.tolist() == pytest.approx(slope)


def test_without_the_dual_clip_a_negative_advantage_is_unbounded_up_to_the_log_ratio_bound() -> None:
    lp = torch.tensor([1.0, 50.0], dtype=torch.float64)
    A = torch.full_like(lp, -1.0)
    got = clipped_surrogate(lp, torch.zeros_like(lp), A, clip_low=0.2, clip_high=0.2, dual_clip=None)
    assert got.tolist() == pytest.approx([torch.e, torch.tensor(20.0, dtype=torch.float64).exp().item()])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token-mean", 21 / 6),
        ("token-sum", 21.0),
        ("seq-mean-token-sum", (3 + 18) / 2),
        ("seq-mean-token-mean", (3 / 2 + 18 / 4) / 2),
        ("seq-mean-token-sum-norm", (3 + 18) / 2 / 8),
    ],
)
def test_aggregation(mode: str, expected: float) -> None:
    loss = torch.tensor([1.0, 2.0, 9.0, 9.0, 3.0, 4.0, 5.0, 6.0, float("nan")])
    mask = torch.tensor([1, 1, 0, 0, 1, 1, 1, 1, 0]).bool()
    sample = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2])
    assert aggregate(loss, mask, Axes(sample=sample), mode, max_length=8).item() == pytest.approx(expected)


def test_an_unknown_mode_and_a_norm_without_a_length_are_refused() -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match="expected one of seq-mean"):
        aggregate(one, one.bool(), Axes(sample=torch.zeros(1).long()), "mean")
    with pytest.raises(ValueError, match="max_length of 1 or more"):
        aggregate(one, one.bool(), Axes(sample=torch.zeros(1).long()), "seq-mean-token-sum-norm")


@pytest.mark.parametrize(
    "options",
    [
        {"clip_low": 1.0},
        {"clip_high": -0.1},
        {"dual_clip": 1.0},
        {"aggregation": "mean"},
        {"aggregation": "seq-mean-token-sum-norm"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|must|needs"):
        PPO(**options)


def test_a_policy_far_from_its_reference_is_still_pulled_back() -> None:
    lp, ref = torch.tensor([-40.0, -1.0], dtype=torch.float64, requires_grad=True), torch.tensor([-1.0, -40.0])
    for estimator, values, slopes in (("k1", [-39.0, 39.0], [1.0, 1.0]), ("k2", [760.5, 760.5], [-39.0, 39.0])):
        got = kl_estimate(lp, ref, estimator)
        (slope,) = torch.autograd.grad(got.sum(), lp)
        assert got.tolist() == values and slope.tolist() == slopes
    assert torch.isfinite(kl_estimate(lp, torch.tensor([800.0, 0.0]), "k3")).all()
