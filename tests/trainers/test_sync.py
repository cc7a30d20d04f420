"""Weights that are pushed are the weights that serve."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import torch

from agenthub.errors import HostFault
from agenthub.policies.embedded import TINY, EmbeddedPolicy, load_model
from agenthub.trainers.sync.embedded import EmbeddedSync
from tests.trainers.fakes import FakePolicy, tiny_model


@pytest.fixture
async def policy() -> AsyncIterator[EmbeddedPolicy]:
    made = EmbeddedPolicy()
    yield made
    await made.close()


async def test_the_embedded_policy_serves_what_was_pushed_to_within_rounding(policy: EmbeddedPolicy) -> None:
    model = load_model(TINY)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    error = await EmbeddedSync(policy, bound=1e-3).push(model, 7)
    assert error < 1e-4
    assert policy.weight_version() == 7
    served = policy.model.state_dict()
    assert all(torch.equal(value, served[name]) for name, value in model.state_dict().items())


async def test_later_training_does_not_reach_into_the_policy() -> None:
    policy, model = FakePolicy(), tiny_model(1)
    await EmbeddedSync(policy, bound=1e-3).push(model, 1)
    before = policy.model.lm_head.weight.clone()
    with torch.no_grad():
        model.lm_head.weight += 1.0
    assert torch.equal(policy.model.lm_head.weight, before)


class Stuck(FakePolicy):
    """Takes weights and goes on serving the version from before."""

    def weight_version(self) -> int:
        return 0


async def test_a_push_that_did_not_arrive_stops_the_run() -> None:
    with pytest.raises(HostFault, match="version 2 was pushed, 0 serves"):
        await EmbeddedSync(Stuck(), bound=1e-3).push(tiny_model(), 2)


async def test_probabilities_that_are_off_or_not_finite_stop_the_run() -> None:
    for lie in (0.01, 1e9):
        policy = FakePolicy()
        policy.lie = lie
        with pytest.raises(HostFault, match="nats off"):
            await EmbeddedSync(policy, bound=1e-3).push(tiny_model(), 1)
