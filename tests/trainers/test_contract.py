"""One suite over every registered filter, credit and loss: what each plug-in of a kind keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agenthub.records import ints
from agenthub.registry import registry
from agenthub.trainers.aggregate import MODES, total
from agenthub.trainers.plugins import make
from agenthub.trainers.types import Batch
from tests.trainers.fakes import batch_of, mixed_batch

FILTERS = registry("filter").names()
CREDITS = registry("credit").names()
LOSSES = registry("loss").names()
STRICT: dict[str, dict[str, Any]] = {"simpletir": {"min_n": 2, "std_min": 1e-3, "truncated": "drop"}}


def padded(batch: Batch, extra: int = 3) -> Batch:
    """The same batch with `extra` tokens that nobody sampled at the end of each sample."""
    order = np.argsort(
        np.concatenate([batch.sample_of_token, np.repeat(np.arange(batch.samples), extra)]), kind="stable"
    )
    ends = np.searchsorted(batch.sample_of_token, np.arange(batch.samples), side="right") - 1

    def grown(values: np.ndarray[Any, Any], filler: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.concatenate([values, filler.astype(values.dtype)])[order]

    zeros = np.zeros(batch.samples * extra)
    return replace(
        batch,
        ids=grown(batch.ids, zeros + 7),
        action_mask=grown(batch.action_mask, zeros),
        sample_of_token=grown(batch.sample_of_token, np.repeat(np.arange(batch.samples), extra)),
        turn_of_token=grown(batch.turn_of_token, np.repeat(batch.turn_of_token[ends], extra)),
        logprobs=grown(batch.logprobs, zeros - 3.0),
        versions=grown(batch.versions, zeros - 1),
        in_loss=grown(batch.in_loss, zeros),
        old_logprobs=grown(batch.old_logprobs, zeros - 3.0),
    )


def loss_of(name: str, batch: Batch, lp: torch.Tensor, A: torch.Tensor, **options: Any) -> torch.Tensor:
    terms = make("loss", name, options).terms(lp, batch, A, torch.ones_like(A), {})
    return total(terms, torch.as_tensor(batch.sample_of_token).long())


def near(batch: Batch, seed: int = 0) -> torch.Tensor:
    """Log-probabilities a little off the rollout's, in f64, with gradient."""
    noise = np.random.default_rng(seed).normal(0.0, 0.15, batch.tokens)
    return torch.tensor(batch.old_logprobs.astype(np.float64) + noise, requires_grad=True)


def advantages(batch: Batch, seed: int = 1) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=batch.trajectories)
    return torch.tensor(np.where(batch.action_mask, values[batch.trajectory_of_token], 0.0))


@pytest.mark.parametrize("options", [{}, STRICT], ids=["defaults", "strict"])
@pytest.mark.parametrize("name", FILTERS)
class TestFilter:
    def test_only_action_tokens_stay_and_everything_that_leaves_has_a_reason(self, name: str, options: Any) -> None:
        batch = mixed_batch()
        filtered = make("filter", name, options.get(name, {})).apply(batch)
        assert not (filtered.in_loss & ~batch.action_mask).any()
        touched = {int(s) for s in batch.sample_of_token[batch.action_mask & ~filtered.in_loss]}
        assert touched | {int(s) for s in np.flatnonzero(~filtered.in_stats)} == set(filtered.reasons)
        assert set(filtered.keep_group) == set(batch.groups)

    def test_padding_changes_nothing(self, name: str, options: Any) -> None:
        batch = mixed_batch()
        plugin = make("filter", name, options.get(name, {}))
        before, after = plugin.apply(batch), plugin.apply(padded(batch))
        assert after.in_loss[padded(batch).action_mask].tolist() == before.in_loss[batch.action_mask].tolist()
        assert after.in_stats.tolist() == before.in_stats.tolist()
        assert after.reasons == before.reasons

    def test_permuting_trajectories_commutes(self, name: str, options: Any) -> None:
        batch = mixed_batch()
        order = ints(np.random.default_rng(5).permutation(batch.trajectories))
        plugin = make("filter", name, options.get(name, {}))
        moved = plugin.apply(batch.select(order))
        still = batch.with_filter(plugin.apply(batch)).select(order)
        assert moved.in_loss.tolist() == still.in_loss.tolist()
        assert moved.in_stats.tolist() == still.in_stats.tolist()
        assert moved.keep_group == still.keep_group


@pytest.mark.parametrize("name", CREDITS)
class TestCredit:
    def test_only_action_tokens_have_an_advantage_and_it_is_a_plain_array(self, name: str) -> None:
        batch = mixed_batch()
        advantage = make("credit", name, {}).advantage(batch)
        assert advantage.dtype == np.float32  # numpy: no gradient can flow
        assert advantage.shape == (batch.tokens,)
        assert not advantage[~batch.action_mask].any()
        assert np.abs(advantage).max() > 0

    def test_padding_changes_nothing(self, name: str) -> None:
        batch = mixed_batch()
        plugin = make("credit", name, {})
        after = plugin.advantage(padded(batch))[padded(batch).action_mask]
        assert after.tolist() == plugin.advantage(batch)[batch.action_mask].tolist()

    def test_permuting_trajectories_commutes(self, name: str) -> None:
        batch = mixed_batch()
        order = ints(np.random.default_rng(5).permutation(batch.trajectories))
        plugin = make("credit", name, {})
        still = plugin.advantage(batch)
        tokens = np.concatenate([np.flatnonzero(batch.trajectory_of_token == n) for n in order])
        assert plugin.advantage(batch.select(order)) == pytest.approx(still[tokens], abs=1e-6)

    def test_who_is_out_of_the_statistics_changes_nobody_elses_advantage(self, name: str) -> None:
        batch = batch_of([1.0, 0.0, 0.0, 1.0, 0.3])
        left = replace(batch, in_stats=np.array([True] * 4 + [False]))
        four = batch.select(ints([0, 1, 2, 3]))
        plugin = make("credit", name, {})
        got = plugin.advantage(left)[left.trajectory_of_token < 4]
        assert got.tolist() == pytest.approx(plugin.advantage(four).tolist())

    @pytest.mark.parametrize("rewards", [[0.7], [0.1] * 3, [1.0] * 8, [0.0] * 5])
    def test_group_centred_credit_is_0_for_equal_rewards_and_for_a_group_of_one(
        self, name: str, rewards: list[float]
    ) -> None:
        plugin = make("credit", name, {})
        if plugin.group_centred:
            assert not plugin.advantage(batch_of(rewards)).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOSSES)
class TestLoss:
    def options(self, mode: str) -> dict[str, Any]:
        return {"aggregation": mode, "max_length": 16 if mode == "seq-mean-token-sum-norm" else 0}

    def test_no_gradient_through_the_advantages(self, name: str, mode: str) -> None:
        batch = mixed_batch()
        A = advantages(batch).requires_grad_(True)
        loss_of(name, batch, near(batch), A, **self.options(mode)).backward()  # type: ignore[no-untyped-call]
        assert A.grad is None

    def test_an_empty_mask_gives_loss_0_and_gradient_0(self, name: str, mode: str) -> None:
        batch = replace(mixed_batch(), in_loss=np.zeros(mixed_batch().tokens, bool))
        lp = torch.full((batch.tokens,), float("nan"), dtype=torch.float64, requires_grad=True)
        loss = loss_of(name, batch, lp, advantages(batch), **self.options(mode))
        (slope,) = torch.autograd.grad(loss, lp)
        assert loss.item() == 0.0
        assert not slope.any()

    def test_tokens_off_the_mask_and_padding_change_nothing(self, name: str, mode: str) -> None:
        batch = mixed_batch()
        lp, A = near(batch), advantages(batch)
        wide = padded(batch)
        wild = torch.full((wide.tokens,), 50.0, dtype=torch.float64)
        wild_A = torch.full((wide.tokens,), -9.0, dtype=torch.float64)
        inside = torch.from_numpy(wide.action_mask)
        wild[inside], wild_A[inside] = lp.detach()[batch.action_mask], A[batch.action_mask]
        expected = loss_of(name, batch, lp, A, **self.options(mode))
        assert loss_of(name, wide, wild, wild_A, **self.options(mode)).item() == pytest.approx(expected.item())

    def test_a_loss_that_is_inert_at_zero_does_not_read_what_has_no_advantage(self, name: str, mode: str) -> None:
        if not make("loss", name, self.options(mode)).inert_at_zero:
            return
        batch = mixed_batch()
        A = advantages(batch) * torch.from_numpy(batch.trajectory_of_token % 2 == 0)
        losses = []
        for missing in (None, 0.0):
            lp = near(batch)
            read = lp if missing is None else torch.where(A == 0, torch.full_like(lp, missing), lp)
            loss = loss_of(name, batch, read, A, **self.options(mode))
            (slope,) = torch.autograd.grad(loss, lp)
            assert not slope[A == 0].any()
            losses.append((loss.item(), slope.tolist()))
        assert losses[0] == losses[1]

    def test_permuting_trajectories_commutes(self, name: str, mode: str) -> None:
        batch = mixed_batch()
        lp, A = near(batch), advantages(batch)
        order = np.random.default_rng(5).permutation(batch.trajectories)
        tokens = np.concatenate([np.flatnonzero(batch.trajectory_of_token == n) for n in order])
        moved = loss_of(name, batch.select(ints(order)), lp[tokens], A[tokens], **self.options(mode))
        still = loss_of(name, batch, lp, A, **self.options(mode))
        assert moved.item() == pytest.approx(still.item())

    def test_with_ratio_1_the_gradient_is_that_of_reinforce(self, name: str, mode: str) -> None:
        batch = mixed_batch()
        A = advantages(batch)
        lp = torch.tensor(batch.old_logprobs.astype(np.float64), requires_grad=True)
        (slope,) = torch.autograd.grad(loss_of(name, batch, lp, A, **self.options(mode)), lp)
        weight = torch.autograd.grad(_sum_of(batch, mode, lp), lp)[0]
        assert slope.tolist() == pytest.approx((-A * weight).tolist(), abs=1e-12)

    def test_the_gradient_agrees_with_finite_differences(self, name: str, mode: str) -> None:
        batch = mixed_batch()
        lp, A = near(batch), advantages(batch)
        loss = loss_of(name, batch, lp, A, **self.options(mode))
        (slope,) = torch.autograd.grad(loss, lp)
        step = 1e-6
        for place in np.flatnonzero(batch.action_mask)[::3]:
            ends = []
            for sign in (1, -1):
                moved = lp.detach().clone()
                moved[place] += sign * step
                ends.append(loss_of(name, batch, moved, A, **self.options(mode)).item())
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope[place].item(), abs=1e-6)


def _sum_of(batch: Batch, mode: str, lp: torch.Tensor) -> torch.Tensor:
    """The aggregate of lp itself, from its written definition: its gradient is each token's weight."""
    rows = [lp[torch.from_numpy((batch.sample_of_token == s) & batch.action_mask)] for s in range(batch.samples)]
    sizes = torch.tensor([len(row) for row in rows], dtype=lp.dtype)
    sums = torch.stack([row.sum() for row in rows])
    return {
        "token-mean": sums.sum() / sizes.sum(),
        "token-sum": sums.sum(),
        "seq-mean-token-sum": sums.mean(),
        "seq-mean-token-mean": (sums / sizes).mean(),
        "seq-mean-token-sum-norm": sums.mean() / 16,
    }[mode]


def test_a_correction_weight_scales_the_token_loss_and_carries_no_gradient() -> None:
    batch = batch_of([1.0, 0.0])
    A = advantages(batch)
    lp = near(batch)
    w = torch.full_like(A, 0.5, requires_grad=True)
    plugin = make("loss", "ppo", {})
    sample = torch.as_tensor(batch.sample_of_token).long()
    half = total(plugin.terms(lp, batch, A, w, {}), sample)
    half.backward()  # type: ignore[no-untyped-call]
    assert w.grad is None
    assert half.item() == pytest.approx(loss_of("ppo", batch, lp, A).item() / 2)
