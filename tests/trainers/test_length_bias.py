"""A bandit of up to three turns whose gradient is known: which credit gets it right, and which is biased by length.

Every group that the policy can draw is enumerated with its probability, so that expectations are exact and no test
rests on luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from agenthub.trainers.aggregate import Axes, total
from agenthub.trainers.credit import ReturnToGo, group_normalised
from agenthub.trainers.plugins import LossState, make
from agenthub.trainers.types import Batch, Bools, Doubles
from tests.golden.batches import Row, flat

TURNS, ACTIONS, MEMBERS = 3, 3, 3
GO_ON = 0
Estimator = Callable[[Batch], Doubles]


@dataclass(frozen=True)
class Play:
    """Actions of one episode; the last one stops, or the third turn does."""

    actions: tuple[int, ...]

    @property
    def rewards(self) -> list[float]:
        """A little for each turn, and at the end what the last action is worth after so many turns."""
        worth = [[0.3, 1.0, 0.0], [0.1, 0.2, 0.9], [0.5, 0.0, 0.4]][len(self.actions) - 1][self.actions[-1]]
        return [*[0.1] * (len(self.actions) - 1), worth]


def plays(prefix: tuple[int, ...] = ()) -> Iterator[Play]:
    for action in range(ACTIONS):
        row = (*prefix, action)
        if action == GO_ON and len(row) < TURNS:
            yield from plays(row)
        else:
            yield Play(row)


ALL = list(plays())
THETA = torch.tensor([[0.6, 0.1, -0.2], [0.3, -0.4, 0.2], [0.0, 0.5, -0.1]], dtype=torch.float64)


def log_probabilities(theta: torch.Tensor, play: Play) -> list[torch.Tensor]:
    logs = torch.log_softmax(theta, dim=1)
    return [logs[turn, action] for turn, action in enumerate(play.actions)]


def row_of(play: Play) -> Row:
    size = len(play.actions)
    return Row(mask=[1] * size, turn=range(size), turn_rewards=play.rewards, reward=sum(play.rewards), outcome=0.0)


def true_gradient() -> torch.Tensor:
    theta = THETA.clone().requires_grad_(True)
    value = torch.stack([torch.stack(log_probabilities(theta, p)).sum().exp() * sum(p.rewards) for p in ALL]).sum()
    return torch.autograd.grad(value, theta)[0]


def expected_gradient(credit: Estimator, aggregation: str) -> torch.Tensor:
    """The mean over all groups of what REINFORCE under this credit and aggregation would ascend."""
    scores = {}
    for play in ALL:
        for turn, action in enumerate(play.actions):
            theta = THETA.clone().requires_grad_(True)
            scores[turn, action] = torch.autograd.grad(torch.log_softmax(theta, dim=1)[turn, action], theta)[0]
    chance = [float(torch.stack(log_probabilities(THETA, play)).sum().exp()) for play in ALL]
    loss = make("loss", "reinforce", {"aggregation": aggregation})
    mean = torch.zeros_like(THETA)
    for members in product(range(len(ALL)), repeat=MEMBERS):
        group = [ALL[m] for m in members]
        batch = flat([row_of(play) for play in group])
        lp = torch.zeros(batch.tokens, dtype=torch.float64, requires_grad=True)
        A = torch.tensor(credit(batch))
        terms = loss.terms(lp, batch, A, torch.ones_like(A), LossState())
        (slope,) = torch.autograd.grad(total(terms, Axes.of(batch, torch.device("cpu"))), lp)
        steps = [(turn, action) for p in group for turn, action in enumerate(p.actions)]
        weight = float(np.prod([chance[m] for m in members]))
        mean -= weight * sum(value * scores[step] for value, step in zip(slope.tolist(), steps, strict=True))
    return mean


def angle(one: torch.Tensor, other: torch.Tensor) -> float:
    """1 - cosine: 0 where both point the same way, whatever their lengths."""
    return 1.0 - float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def naive_per_turn(batch: Batch) -> Doubles:
    """Returns-to-go normalised by mean and deviation of the members that reached the turn."""
    returns = ReturnToGo().per_turn(batch) * 0.0
    for n, t in zip(batch.trajectory_of_turn, batch.turn_index, strict=True):
        rows = np.flatnonzero(batch.trajectory_of_turn == n)
        returns[rows[t]] = batch.step_rewards[rows[t:]].sum()
    reached = np.ones(returns.size, bool)
    return group_normalised(returns, batch.turn_index, reached, eps=1e-6)[batch.turn_of_token]


class OfTheLiving(ReturnToGo):
    """The mutant: the baseline of a turn is the mean over the members that reached it."""

    def voters(self, batch: Batch, turn: int) -> Bools:
        return np.bincount(batch.trajectory_of_turn, minlength=batch.trajectories) > turn


def test_return_to_go_gives_the_true_gradient_exactly() -> None:
    estimate = expected_gradient(ReturnToGo().advantage, "seq-mean-token-sum")
    assert torch.allclose(estimate, true_gradient(), atol=1e-12)


def test_leave_one_out_credit_of_whole_trajectories_is_unbiased_too() -> None:
    estimate = expected_gradient(make("credit", "rloo", {}).advantage, "seq-mean-token-sum")
    assert torch.allclose(estimate, true_gradient(), atol=1e-12)


def test_naive_per_turn_normalisation_points_elsewhere() -> None:
    assert angle(expected_gradient(naive_per_turn, "seq-mean-token-sum"), true_gradient()) > 1e-3


def test_a_baseline_over_the_members_that_reached_the_turn_points_elsewhere() -> None:
    assert angle(expected_gradient(OfTheLiving().advantage, "seq-mean-token-sum"), true_gradient()) > 1e-3


def test_dividing_by_a_trajectorys_own_length_points_elsewhere() -> None:
    for mode in ("seq-mean-token-mean", "token-mean"):
        assert angle(expected_gradient(ReturnToGo().advantage, mode), true_gradient()) > 1e-3
