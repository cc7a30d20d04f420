"""The view at the model's door, the gradient, and the update."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.records import floats
from agenthub.trainers.aggregate import MODES
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.credit import GRPO
from agenthub.trainers.filters import SimpleTIR
from agenthub.trainers.learner import Learner, Stopped
from agenthub.trainers.losses import PPO
from agenthub.trainers.types import Batch
from agenthub.trainers.view import views
from tests.trainers.fakes import mixed_batch, tiny_model

CPU = torch.device("cpu")


def learner(loss: PPO | None = None, *, temperature: float = 1.0, double: bool = False, **optim: Any) -> Learner:
    model = tiny_model()
    model = model.double() if double else model
    return Learner(model, loss or PPO(), OptimConfig(**{"lr": 0.01} | optim), temperature=temperature)


def on_policy(made: Learner, batch: Batch, noise: float = 0.1) -> Batch:
    """The batch with rollout log-probabilities near the model's own."""
    lp = made.logprobs(batch, batch.action_mask)
    off = np.random.default_rng(0).normal(0.0, noise, batch.tokens) * batch.action_mask
    return replace(batch, old_logprobs=floats((lp + off).astype(np.float32)))


@pytest.mark.parametrize("packed", [True, False])
@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 200), keep=st.lists(st.booleans(), min_size=7, max_size=7), ranks=st.integers(1, 3))
def test_views_hold_each_chosen_token_once_with_what_stands_before_it(
    packed: bool, width: int, keep: list[bool], ranks: int
) -> None:
    batch = mixed_batch()
    chosen = batch.action_mask & np.array(keep)[batch.trajectory_of_token]
    parts = [
        views(batch, chosen, max_tokens=width, device=CPU, packed=packed, part=(rank, ranks)) for rank in range(ranks)
    ]
    assert len({len(part) for part in parts}) == 1
    seen = []
    for view in [view for part in parts for view in part]:
        samples = len(set(batch.sample_of_token[view.tokens.numpy()]))
        assert samples <= 1 or view.ids.numel() <= width
        flat = view.ids.reshape(-1)
        places = view.positions.reshape(-1) if view.positions is not None else None
        for before, target, token in zip(
            view.before.tolist(), view.targets.tolist(), view.tokens.tolist(), strict=True
        ):
            assert target == batch.ids[token]
            assert flat[before] == batch.ids[token - 1]
            start = int(np.searchsorted(batch.sample_of_token, batch.sample_of_token[token]))
            assert places is None or places[before] == token - 1 - start
            seen.append(token)
    assert sorted(seen) == np.flatnonzero(chosen).tolist()


def test_scores_are_those_of_each_sample_alone_at_the_rollouts_temperature() -> None:
    made, batch = learner(temperature=0.7), mixed_batch()
    got = made.logprobs(batch, batch.action_mask)
    for s in range(batch.samples):
        tokens = np.flatnonzero(batch.sample_of_token == s)
        ids = torch.tensor(batch.ids[tokens][None], dtype=torch.int64)
        with torch.no_grad():
            logs = torch.log_softmax(made.model(ids).logits[0] / 0.7, dim=-1)
        for place, token in enumerate(tokens):
            expected = float(logs[place - 1, batch.ids[token]]) if batch.action_mask[token] else 0.0
            assert got[token] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_cutting_the_batch_up_changes_the_gradient_by_rounding_alone(mode: str) -> None:
    loss = PPO(aggregation=mode, max_length=16)
    whole = learner(loss)
    batch = on_policy(whole, mixed_batch())
    batch = batch.with_filter(SimpleTIR().apply(batch))
    advantage = GRPO().advantage(batch)
    rows = []
    cuts: list[dict[str, Any]] = [{}, {"view_tokens": 20}, {"view_tokens": 20, "graph_tokens": 10}]
    for cut in cuts:
        made = learner(loss, **cut)
        got = made.gradient(batch, advantage)
        gradients = [p.grad.clone() for p in made.model.parameters() if p.grad is not None]
        rows.append((got.loss, got.norm, got.entropy, torch.cat([g.flatten() for g in gradients])))
    for row in rows[1:]:
        assert row[:3] == pytest.approx(rows[0][:3], rel=1e-4)
        assert torch.allclose(row[3], rows[0][3], atol=1e-6)


def test_along_its_own_direction_the_loss_rises_by_the_gradients_norm() -> None:
    """Finite differences over all parameters at once: the norms of transformers compute in float32."""
    made = learner(double=True)
    batch = on_policy(made, mixed_batch(), noise=0.05)
    advantage = GRPO().advantage(batch)
    norm = made.gradient(batch, advantage).norm
    parameters = [parameter for parameter in made.model.parameters() if parameter.grad is not None]
    direction = [parameter.grad / norm for parameter in parameters]
    ends = []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            torch._foreach_add_(parameters, direction, alpha=step)
        ends.append(made.gradient(batch, advantage).loss)
        with torch.no_grad():
            torch._foreach_add_(parameters, direction, alpha=-step)
    assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(norm, rel=2e-3)


def test_an_update_raises_what_was_rewarded_and_lowers_what_was_not() -> None:
    made = learner(minibatches=1)
    batch = on_policy(made, mixed_batch(), noise=0.0)
    advantage = GRPO().advantage(batch)
    before = made.logprobs(batch, batch.action_mask)
    stats = made.update(batch, advantage, seed=0)
    change = made.logprobs(batch, batch.action_mask) - before
    assert stats.steps == 1
    assert stats.metrics["clip_fraction"] == 0.0
    assert float((change * advantage).sum()) > 0


def test_void_trajectories_and_padding_move_no_weight() -> None:
    batch = mixed_batch()
    weights = []
    for other in (1, 9):
        made = learner()
        void = batch.trajectory_of_token == 1
        changed = replace(batch, ids=np.where(void, other, batch.ids).astype(np.int32))
        changed = changed.with_filter(SimpleTIR().apply(changed))
        made.update(changed, GRPO().advantage(changed), seed=0)
        weights.append(torch.cat([p.detach().flatten() for p in made.model.parameters()]))
    assert torch.equal(weights[0], weights[1])


def test_the_same_seed_gives_the_same_bits_and_an_empty_loss_gives_no_step() -> None:
    batch, weights = mixed_batch(), []
    for _ in range(2):
        made = learner(minibatches=3, epochs=2)
        assert made.update(batch, GRPO().advantage(batch), seed=4).steps == 6
        weights.append(torch.cat([p.detach().flatten() for p in made.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    empty = replace(batch, in_loss=np.zeros(batch.tokens, bool))
    made = learner()
    stats = made.update(empty, GRPO().advantage(batch), seed=0)
    assert (stats.steps, stats.grad_norm, stats.tokens) == (0, 0.0, 0)


def test_leaving_out_tokens_without_advantage_changes_nothing_but_the_work() -> None:
    class Thorough(PPO):
        inert_at_zero = False

    batch, weights = mixed_batch(), []
    for loss in (PPO(), Thorough()):
        made = learner(loss, minibatches=3, epochs=2)
        made.update(batch, GRPO().advantage(batch), seed=4)
        weights.append(torch.cat([p.detach().flatten() for p in made.model.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


def test_a_gradient_that_is_not_finite_takes_no_step_and_is_counted() -> None:
    made, batch = learner(), mixed_batch()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    advantage = GRPO().advantage(batch)
    advantage[batch.action_mask] = np.inf
    stats = made.update(batch, advantage, seed=0)
    assert (stats.steps, stats.skipped) == (0, 2)
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())


def test_old_log_probabilities_are_the_rollouts_where_these_weights_sampled() -> None:
    batch = mixed_batch()
    auto = learner()
    assert auto.with_old_logprobs(batch, version=0) is batch
    again = auto.with_old_logprobs(batch, version=3)
    assert np.array_equal(again.old_logprobs, auto.logprobs(batch, batch.in_loss))
    assert learner(old_logprobs="rollout").with_old_logprobs(batch, version=3) is batch
    assert learner(old_logprobs="recompute").with_old_logprobs(batch, version=0) is not batch


def test_a_set_stop_ends_the_update_before_its_next_minibatch() -> None:
    stop, batch = threading.Event(), mixed_batch()
    stop.set()
    with pytest.raises(Stopped):
        learner().update(batch, GRPO().advantage(batch), seed=0, stop=stop)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [1, 1, 1, 1]), ("linear", [1, 0.75, 0.5, 0.25]), ("cosine", [1, 0.854, 0.5, 0.146])],
)
def test_the_learning_rate_follows_its_schedule(schedule: str, rates: list[float]) -> None:
    made = learner(lr=1.0, schedule=schedule)
    got = []
    for number in range(1, 5):
        made.schedule(number, 4)
        got.append(made.learning_rate)
    assert got == pytest.approx(rates, abs=1e-3)


def test_warmup_rises_to_the_full_rate() -> None:
    made = learner(lr=1.0, warmup=3)
    got = []
    for number in range(1, 6):
        made.schedule(number, 10)
        got.append(made.learning_rate)
    assert got == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
