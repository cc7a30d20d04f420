"""One suite over every registered loss, under every aggregation: what each keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from agenthub.records import ints
from agenthub.registry import registry
from agenthub.trainers.aggregate import MODES, Axes, total
from agenthub.trainers.plugins import NEEDS, LossState, make
from agenthub.trainers.types import EXPERT, REFINED, Batch
from tests.trainers.contracts import padded, rich_batch

CPU = torch.device("cpu")
LENGTH = 16


def batch_with_guests() -> Batch:
    """Every score; of the last group's neighbours one trajectory is an expert's and one is refined."""
    batch = rich_batch()
    names = list(batch.policy_of_sample)
    names[4], names[5] = EXPERT, REFINED
    return replace(batch, policy_of_sample=tuple(names)).with_peers()


def options(mode: str) -> dict[str, Any]:
    return {"aggregation": mode, "max_length": LENGTH if mode == "seq-mean-token-sum-norm" else 0}


def logsumexp(batch: Batch) -> torch.Tensor:
    """Values that belong to the tokens, not to their places; wild off the action tokens."""
    assert batch.scores.values is not None
    return torch.tensor(np.asarray(batch.scores.values, np.float64) + 1.0)


def loss_of(name: str, batch: Batch, lp: torch.Tensor, A: torch.Tensor, mode: str) -> torch.Tensor:
    plugin = make("loss", name, options(mode))
    state = LossState(step=3, values=plugin.start(), logsumexp=logsumexp(batch))
    return total(plugin.terms(lp, batch, A, torch.ones_like(A), state), Axes.of(batch, CPU))


def near(batch: Batch, seed: int = 0) -> torch.Tensor:
    """Log-probabilities a little off the rollout's, in f64, with gradient."""
    noise = np.random.default_rng(seed).normal(0.0, 0.15, batch.tokens)
    return torch.tensor(np.asarray(batch.old_logprobs, np.float64) + noise, requires_grad=True)


def advantages(batch: Batch, seed: int = 1) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=batch.trajectories)
    return torch.tensor(np.where(batch.action_mask, values[batch.trajectory_of_token], 0.0))


class Held(TorchFunctionMode):
    """Stop-gradients taken at their word: what `detach` gave at one point it gives at every other.

    The loss becomes the function whose derivative its gradient is, so that finite differences apply to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: list[torch.Tensor] = []
        self._place = -1

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within it the known values are given out in their order."""
        self._place = 0
        with self:
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.detach:
            return out
        if self._place < 0:
            self._known.append(out.clone())
            return out
        self._place += 1
        return self._known[self._place - 1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", registry("loss").names())
class TestLoss:
    def test_no_gradient_through_the_advantages_and_the_weights(self, name: str, mode: str) -> None:
        batch, plugin = batch_with_guests(), make("loss", name, options(mode))
        A = advantages(batch).requires_grad_(True)
        w = torch.ones_like(A, requires_grad=True)
        state = LossState(values=plugin.start(), logsumexp=logsumexp(batch))
        total(plugin.terms(near(batch), batch, A, w, state), Axes.of(batch, CPU)).backward()  # type: ignore[no-untyped-call]
        assert A.grad is None
        assert w.grad is None

    def test_an_empty_mask_gives_loss_0_and_gradient_0(self, name: str, mode: str) -> None:
        batch = batch_with_guests()
        batch = replace(batch, in_loss=np.zeros(batch.tokens, bool))
        lp = torch.full((batch.tokens,), float("nan"), dtype=torch.float64, requires_grad=True)
        loss = loss_of(name, batch, lp, advantages(batch), mode)
        (slope,) = torch.autograd.grad(loss, lp)
        assert loss.item() == 0.0
        assert not slope.any()

    def test_tokens_off_the_mask_and_padding_change_nothing(self, name: str, mode: str) -> None:
        batch = batch_with_guests()
        lp, A = near(batch), advantages(batch)
        wide = padded(batch)
        wild = torch.full((wide.tokens,), 50.0, dtype=torch.float64)
        wild_A = torch.full((wide.tokens,), -9.0, dtype=torch.float64)
        inside = torch.from_numpy(wide.action_mask)
        wild[inside], wild_A[inside] = lp.detach()[batch.action_mask], A[batch.action_mask]
        expected = loss_of(name, batch, lp, A, mode)
        assert loss_of(name, wide, wild, wild_A, mode).item() == pytest.approx(expected.item())

    def test_a_loss_that_is_inert_at_zero_does_not_read_what_has_no_advantage(self, name: str, mode: str) -> None:
        if not make("loss", name, options(mode)).inert_at_zero:
            return
        batch = batch_with_guests()
        A = advantages(batch) * torch.from_numpy(batch.trajectory_of_token % 2 == 0)
        losses = []
        for missing in (None, 0.0):
            lp = near(batch)
            read = lp if missing is None else torch.where(A == 0, torch.full_like(lp, missing), lp)
            loss = loss_of(name, batch, read, A, mode)
            (slope,) = torch.autograd.grad(loss, lp)
            assert not slope[A == 0].any()
            losses.append((loss.item(), slope.tolist()))
        assert losses[0] == losses[1]

    def test_permuting_trajectories_commutes(self, name: str, mode: str) -> None:
        batch = batch_with_guests()
        lp, A = near(batch), advantages(batch)
        order = np.random.default_rng(5).permutation(batch.trajectories)
        tokens = np.concatenate([np.flatnonzero(batch.trajectory_of_token == n) for n in order])
        moved = loss_of(name, batch.select(ints(order)), lp[tokens], A[tokens], mode)
        assert moved.item() == pytest.approx(loss_of(name, batch, lp, A, mode).item())

    def test_with_ratio_1_the_gradient_is_that_of_reinforce(self, name: str, mode: str) -> None:
        if not make("loss", name, options(mode)).reinforce_at_one:
            return
        batch = rich_batch()
        batch = replace(batch, logprobs=batch.old_logprobs)
        A = advantages(batch)
        lp = torch.tensor(np.asarray(batch.old_logprobs, np.float64), requires_grad=True)
        (slope,) = torch.autograd.grad(loss_of(name, batch, lp, A, mode), lp)
        weight = torch.autograd.grad(_sum_of(batch, mode, lp), lp)[0]
        assert slope.tolist() == pytest.approx((-A * weight).tolist(), abs=1e-12)

    def test_the_gradient_agrees_with_finite_differences(self, name: str, mode: str) -> None:
        batch = batch_with_guests()
        lp, A, held = near(batch), advantages(batch), Held()
        with held:
            loss = loss_of(name, batch, lp, A, mode)
        (slope,) = torch.autograd.grad(loss, lp)
        step = 1e-6
        for place in np.flatnonzero(batch.action_mask)[::3]:
            ends = []
            for sign in (1, -1):
                moved = lp.detach().clone()
                moved[place] += sign * step
                with held.again():
                    ends.append(loss_of(name, batch, moved, A, mode).item())
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope[place].item(), abs=2e-6, rel=1e-4)


def _sum_of(batch: Batch, mode: str, lp: torch.Tensor) -> torch.Tensor:
    """The aggregate of lp itself, from its written definition: its gradient is each token's weight."""

    def rows(owner: Any, size: int) -> list[torch.Tensor]:
        return [lp[torch.from_numpy((owner == s) & batch.action_mask)] for s in range(size)]

    samples = rows(batch.sample_of_token, batch.samples)
    sizes = torch.tensor([len(row) for row in samples], dtype=lp.dtype)
    sums = torch.stack([row.sum() for row in samples])
    turns = [row.mean() for row in rows(batch.turn_of_token, len(batch.turns))]
    by_trajectory = [
        torch.stack([turns[k] for k in np.flatnonzero(batch.trajectory_of_turn == n)]).mean()
        for n in range(batch.trajectories)
    ]
    return {
        "token-mean": sums.sum() / sizes.sum(),
        "token-sum": sums.sum(),
        "seq-mean-token-sum": sums.mean(),
        "seq-mean-token-mean": (sums / sizes).mean(),
        "seq-mean-token-sum-norm": sums.mean() / LENGTH,
        "traj-mean-turn-mean": torch.stack(by_trajectory).mean(),
    }[mode]


@pytest.mark.parametrize("name", registry("loss").names())
def test_it_learns_from_something_and_says_what_it_needs(name: str) -> None:
    batch, plugin = batch_with_guests(), make("loss", name, {})
    lp = near(batch)
    state = LossState(step=3, values=plugin.start(), logsumexp=logsumexp(batch))
    loss = total(plugin.terms(lp, batch, advantages(batch), torch.ones(batch.tokens), state), Axes.of(batch, CPU))
    (slope,) = torch.autograd.grad(loss, lp)
    assert slope.abs().max() > 0
    assert plugin.needs <= set(NEEDS)


@pytest.mark.parametrize("name", registry("loss").names())
def test_a_stateful_losss_state_is_numbers_that_move(name: str) -> None:
    batch, plugin = batch_with_guests(), make("loss", name, {})
    state = plugin.start()
    terms = plugin.terms(
        near(batch),
        batch,
        advantages(batch),
        torch.ones(batch.tokens),
        LossState(values=state, logsumexp=logsumexp(batch)),
    )
    metrics = {key: float(value) for term in terms for key, value in term.metrics.items()}
    after = plugin.advance(state, metrics)
    assert set(after) == set(state)
    assert after != state or not state


def test_a_correction_weight_scales_the_token_loss() -> None:
    batch = rich_batch()
    A, lp, plugin = advantages(batch), near(batch), make("loss", "ppo", {})
    axes = Axes.of(batch, CPU)
    half = total(plugin.terms(lp, batch, A, torch.full_like(A, 0.5), LossState()), axes)
    assert half.item() == pytest.approx(
        total(plugin.terms(lp, batch, A, torch.ones_like(A), LossState()), axes).item() / 2
    )
