"""Weights that travel by vLLM's native routes into a real server, over gloo where a GPU would use NCCL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agenthub.errors import HostFault
from agenthub.policies.embedded import TINY, load_model
from agenthub.policies.vllm import VllmPolicy
from agenthub.trainers.adapters import LoraConfig, LowRank, add_adapters
from agenthub.trainers.sync.native import NativeSync
from agenthub.trainers.sync.vllm import AdapterSync, VllmSync
from tests.policies.models import prompts, request
from tests.vllm.gloo import Gloo
from tests.vllm.weights import moved, scored

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture
async def back(policy: VllmPolicy, tmp_path: Path) -> AsyncIterator[None]:
    """Serve the plain model again, whatever a test has left."""
    yield
    await VllmSync(policy, tmp_path, bound=1e-4).push(load_model(TINY)[0], 0)


@pytest.mark.usefixtures("back")
async def test_weights_are_broadcast_packed_into_a_running_server(policy: VllmPolicy) -> None:
    sync = NativeSync(policy, Gloo(buffer_bytes=100_000), bound=1e-4, untie=True)
    model = load_model(TINY)[0]
    for version in (21, 22, 23):
        model = moved(model, seed=version)
        assert await sync.push(model, version) < 1e-4
        assert policy.weight_version() == version
        (made,) = await policy.generate([request([5, 6], 1)])
        assert made.versions == ((0, version),)


@pytest.mark.usefixtures("back")
async def test_a_push_that_a_killed_trainer_left_open_is_ended_by_the_next(policy: VllmPolicy) -> None:
    await policy.http.pause("keep")
    await policy.http.start_update()
    sync = NativeSync(policy, Gloo(), bound=1e-4, untie=True)
    assert await sync.push(moved(load_model(TINY)[0], seed=51), 51) < 1e-4


@pytest.mark.usefixtures("back")
async def test_a_layer_that_a_transfer_leaves_out_stops_the_run(policy: VllmPolicy) -> None:
    model = moved(load_model(TINY)[0], seed=31)
    stale = moved(load_model(TINY)[0], seed=31)
    stale.model.layers[1].load_state_dict(load_model(TINY)[0].model.layers[1].state_dict())

    class Forgetful(NativeSync):
        """Sends all layers but one."""

        async def deliver(self, model: Any, version: int) -> None:
            await super().deliver(stale, version)

    with pytest.raises(HostFault, match="nats off"):
        await Forgetful(policy, Gloo(), bound=1e-3, untie=True).push(model, 31)


@pytest.mark.usefixtures("back")
async def test_an_adapter_is_served_without_a_merge_and_follows_its_updates(policy: VllmPolicy, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = add_adapters(load_model(TINY)[0], LoraConfig(rank=4))
    sync = AdapterSync(policy, tmp_path / "adapters", bound=1e-4)
    for version in (41, 42):
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, LowRank):
                    layer.lora_B.add_(torch.randn_like(layer.lora_B), alpha=0.03)
        assert await sync.push(model, version) < 1e-4
        assert policy.weight_version() == version
    asked = [request(prompt, seed, max_tokens=8) for seed, prompt in enumerate(prompts(8))]
    made = await policy.generate(asked)
    assert scored(model, asked, made) < 1e-4
    assert scored(load_model(TINY)[0], asked, made) > 1e-2
    assert sorted(path.name for path in (tmp_path / "adapters" / "weights-000042").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
