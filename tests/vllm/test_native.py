"""A native push against a server that misbehaves: what is asked in which order, and what stops the run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from agenthub.errors import HostFault, UserError
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_http import Served, check_transfers
from agenthub.trainers.sync.native import NativeSync
from agenthub.trainers.sync.weights import Weights
from tests.policies.models import request
from tests.trainers.fakes import tiny_model
from tests.trainers.test_transfer import Wire
from tests.vllm.fake_server import FakeVllm, serving


class Unprobed(NativeSync):
    """A push without the probe: the fake computes nothing."""

    async def push(self, model: Any, version: int) -> float:
        await self.deliver(model, version)
        return 0.0


@pytest.fixture
async def server() -> AsyncIterator[tuple[FakeVllm, str]]:
    async with serving() as both:
        yield both


@pytest.fixture
async def policy(server: tuple[FakeVllm, str]) -> AsyncIterator[VllmPolicy]:
    made = VllmPolicy(server[1], in_flight=4, retry_s=20.0)
    await made.attach()
    yield made
    await made.close()


@pytest.mark.parametrize("mode", ["keep", "wait", "abort"])
async def test_a_push_says_each_thing_once_and_in_order(
    server: tuple[FakeVllm, str], policy: VllmPolicy, mode: Literal["keep", "wait", "abort"]
) -> None:
    fake, wire = server[0], Wire(4000)
    sync = Unprobed(policy, wire, bound=1.0, mode=mode)
    for version in (1, 2):
        await sync.push(tiny_model(), version)
        assert policy.weight_version() == version
    each = [
        *(f"/pause?mode={mode}", "/start_weight_update", "/update_weights", "/finish_weight_update"),
        *("/reset_prefix_cache?reset_running_requests=true", "/update_weight_version", "/resume"),
    ]
    assert fake.log == ["/update_weight_version", "/init_weight_transfer_engine", *each, *each]
    assert fake.init["world_size"] == 3
    names = [meta.name for meta in Weights(tiny_model()).metas()]
    assert [update["names"] for update in fake.updates] == [names, names]


async def test_an_update_that_a_killed_trainer_left_open_is_ended_first(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    server[0].updating = True
    await Unprobed(policy, Wire(4000), bound=1.0).push(tiny_model(), 1)
    started = [path for path in server[0].log if path.endswith("_weight_update")]
    assert started == ["/start_weight_update", "/finish_weight_update", "/start_weight_update", "/finish_weight_update"]
    assert policy.weight_version() == 1


@pytest.mark.parametrize("path", ["/start_weight_update", "/update_weights", "/finish_weight_update", "/pause"])
async def test_a_push_that_fails_leaves_the_server_paused_and_the_old_version(
    server: tuple[FakeVllm, str], policy: VllmPolicy, path: str
) -> None:
    fake = server[0]
    fake.fails.add(path)
    with pytest.raises(HostFault, match=f"{path}.*: 500 it broke"):
        await Unprobed(policy, Wire(4000), bound=1.0).push(tiny_model(), 1)
    assert "/resume" not in fake.log
    assert policy.weight_version() == 0


async def test_a_server_that_tells_another_version_afterwards_stops_the_run(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    server[0].stuck = True
    with pytest.raises(HostFault, match="weight version 1 was pushed, the server tells '0'"):
        await Unprobed(policy, Wire(4000), bound=1.0).push(tiny_model(), 1)
    assert not server[0].resumed.is_set()


async def test_a_server_without_a_transfer_engine_is_refused_by_name(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    server[0].lacks.add("/init_weight_transfer_engine")
    with pytest.raises(UserError, match=r"/init_weight_transfer_engine: 404 .*VLLM_SERVER_DEV_MODE=1"):
        await Unprobed(policy, Wire(4000), bound=1.0).push(tiny_model(), 1)


async def test_an_error_of_the_server_is_not_waited_out_beside_a_broadcast_that_hangs(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    server[0].fails.add("/update_weights")
    over = threading.Event()

    class Hanging(Wire):
        """Waits for a worker that will never take part."""

        def broadcast(self, tensor: Any, src: int) -> None:
            over.wait()

    try:
        async with asyncio.timeout(60):
            with pytest.raises(HostFault, match="500 it broke"):
                await Unprobed(policy, Hanging(4000), bound=1.0).push(tiny_model(), 1)
    finally:
        over.set()


async def test_a_broadcast_that_fails_stops_the_run(server: tuple[FakeVllm, str], policy: VllmPolicy) -> None:
    class Broken(Wire):
        """A group that is gone."""

        def broadcast(self, tensor: Any, src: int) -> None:
            raise RuntimeError("NCCL error: unhandled system error")

    with pytest.raises(HostFault, match="the transfer of weights broke off: NCCL error"):
        await Unprobed(policy, Broken(4000), bound=1.0).push(tiny_model(), 1)


@pytest.mark.parametrize(("mode", "attempts"), [("keep", 1), ("abort", 2)])
async def test_a_turn_in_flight_is_kept_or_sampled_again_as_the_mode_says(
    server: tuple[FakeVllm, str], policy: VllmPolicy, mode: Literal["keep", "abort"], attempts: int
) -> None:
    fake = server[0]
    fake.delay_s = 0.01
    turn = asyncio.create_task(policy.generate([request([1], 3, max_tokens=40)]))
    await fake.streaming.wait()
    await Unprobed(policy, Wire(4000), bound=1.0, mode=mode).push(tiny_model(), 1)
    (made,) = await turn
    assert len(fake.bodies) == attempts
    assert made.ids.size == 40
    assert [version for _, version in made.versions] == ([0, 1] if mode == "keep" else [1])


def test_older_servers_speak_another_transfer() -> None:
    served = Served(model="policy", root="", context=64, version="0.31.2")
    with pytest.raises(UserError, match=r"vLLM 0.31.2; policy.vllm.sync: nccl and ipc need 0.32"):
        check_transfers(served)
