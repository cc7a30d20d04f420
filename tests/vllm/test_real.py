"""A real vLLM serves the tiny policy: the tokens, their log-probabilities, and what a push of weights changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agenthub.errors import HostFault, UserError
from agenthub.policies.embedded import TINY, EmbeddedPolicy, load_model
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_server import Engine, Running, VllmServer, vllm_server
from agenthub.policy import Request, Sampling
from agenthub.records import Finish, Generation, ints
from agenthub.trainers.sync.directory import write_weights
from agenthub.trainers.sync.parity import parity
from agenthub.trainers.sync.vllm import VllmSync
from tests.policies.models import STOP, prompts, request
from tests.vllm.weights import moved, scored

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model() -> Any:
    """The learner's copy of what the server started with."""
    return load_model(TINY)[0]


async def served(policy: VllmPolicy, model: Any, folder: Path, version: int = 0) -> VllmSync:
    """A sync that has pushed the model's weights."""
    sync = VllmSync(policy, folder, bound=1e-4)
    await sync.push(model, version)
    return sync


async def test_log_probabilities_are_the_models_at_any_temperature(
    policy: VllmPolicy, model: Any, tmp_path: Path
) -> None:
    await served(policy, model, tmp_path)
    asked = [
        request(prompt, seed, temperature=(1.0, 0.0, 0.6)[seed % 3], max_tokens=3 + seed % 11)
        for seed, prompt in enumerate(prompts(24))
    ]
    made = await policy.generate(asked)
    assert scored(model, asked, made) < 1e-4
    for one, generation in zip(asked, made, strict=True):
        stopped = generation.ids[-1] == STOP
        assert generation.finish is (Finish.STOP if stopped else Finish.LENGTH)
        assert stopped or generation.ids.size == one.sampling.max_tokens
        assert generation.entropies is not None
        assert (generation.entropies >= 0.0).all()


async def test_greedy_turns_are_the_embedded_policys_token_for_token(
    policy: VllmPolicy, model: Any, tmp_path: Path
) -> None:
    await served(policy, model, tmp_path)
    embedded = EmbeddedPolicy()
    asked = [request(prompt, temperature=0.0, max_tokens=30) for prompt in prompts(16, seed=4)]
    ours, theirs = await embedded.generate(asked), await policy.generate(asked)
    assert [one.ids.tolist() for one in theirs] == [one.ids.tolist() for one in ours]
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    await embedded.close()


async def test_the_same_seed_gives_the_same_tokens_whatever_is_sampled_beside(policy: VllmPolicy) -> None:
    asked = [request(prompt, seed, max_tokens=10) for seed, prompt in enumerate(prompts(8, seed=2))]
    together = await policy.generate(asked)
    alone = [(await policy.generate([one]))[0] for one in asked]
    assert [one.ids.tolist() for one in together] == [one.ids.tolist() for one in alone]
    others = await policy.generate([request(prompts(1)[0], seed, max_tokens=6) for seed in range(8)])
    assert len({tuple(one.ids.tolist()) for one in others}) > 1


async def test_many_long_prompts_at_once_do_not_end_the_engine(policy: VllmPolicy) -> None:
    # More tokens than one step of the engine takes: in pieces, seeded prompts end a vLLM on a CPU.
    asked = [request([(seed + place) % 250 for place in range(300)], seed, max_tokens=4) for seed in range(24)]
    together = await policy.generate(asked)
    assert policy.retried == 0
    alone = (await policy.generate(asked[7:8]))[0]
    assert alone.ids.tolist() == together[7].ids.tolist()


async def test_a_complete_action_ends_a_turn_and_the_next_one_extends_it(
    policy: VllmPolicy, model: Any, tmp_path: Path
) -> None:
    await served(policy, model, tmp_path)
    first = request([1, 2, 3], 7, max_tokens=200, complete=lambda ids: len(ids) >= 5)
    (made,) = await policy.generate([first])
    assert made.ids.size <= 5
    second = request([1, 2, 3, *made.ids.tolist(), 40, 41], 8, max_tokens=9)
    (after,) = await policy.generate([second])
    assert scored(model, [second], [after]) < 1e-4


async def test_pushed_weights_serve_under_their_version(policy: VllmPolicy, model: Any, tmp_path: Path) -> None:
    sync = await served(policy, model, tmp_path)
    for version, mode in ((1, "keep"), (2, "wait"), (3, "abort")):
        other = moved(model, seed=version)
        sync = VllmSync(policy, tmp_path, bound=1e-4, mode=mode)  # type: ignore[arg-type]
        assert await sync.push(other, version) < 1e-4
        assert policy.weight_version() == version
        (made,) = await policy.generate([request([5, 6], 1)])
        assert made.versions == ((0, version),)
    assert os.listdir(tmp_path) == ["weights-000003"]


async def crossing(policy: VllmPolicy, folder: Path, versions: Sequence[int]) -> list[Generation]:
    """Turns that were begun under the first version and went on under the second, whose weights are in a folder."""
    begun, pushed = asyncio.Event(), asyncio.Event()
    at_push: dict[int, int] = {}

    def long(seed: int) -> Request:
        """A turn that ends when it has been under the new weights for a while."""

        def complete(ids: Sequence[int]) -> bool:
            if len(ids) > 20:
                begun.set()
            return pushed.is_set() and len(ids) > at_push.setdefault(seed, len(ids)) + 20

        return Request(
            prompt_ids=ints([seed + 1]),
            sampling=Sampling(max_tokens=1000),
            seed=seed,
            stop_ids=frozenset(),
            complete=complete,
        )

    turns = asyncio.create_task(policy.generate([long(seed) for seed in range(4)]))
    await begun.wait()
    await policy.load_directory(folder, versions[1])
    pushed.set()
    return [one for one in await turns if [version for _, version in one.versions] == list(versions)]


async def test_a_turn_goes_on_under_the_new_weights_and_each_token_names_its_own(
    policy: VllmPolicy, model: Any, tmp_path: Path
) -> None:
    other = moved(model, seed=5)
    folder = await asyncio.to_thread(write_weights, other, tmp_path / "apart", untie=True)
    crossed: list[Generation] = []
    for version in range(10, 20, 2):
        # On a busy machine all turns may have ended before the push came.
        await served(policy, model, tmp_path, version)
        if crossed := await crossing(policy, folder, (version, version + 1)):
            break
    assert crossed
    for one in crossed:
        cut = one.versions[1][0]
        ids = torch.tensor([[*one.prompt_ids.tolist(), *one.ids.tolist()]])
        for weights, part in ((model, slice(0, cut)), (other, slice(cut, None))):
            with torch.no_grad():
                logs = torch.log_softmax(weights(input_ids=ids).logits[0, one.prompt_ids.size - 1 : -1], dim=-1)
            told = logs.gather(1, ids[0, one.prompt_ids.size :, None])[:, 0].numpy()
            np.testing.assert_allclose(one.logprobs[part], told[part], atol=2e-4)


async def test_a_layer_that_was_left_behind_stops_the_run(policy: VllmPolicy, model: Any, tmp_path: Path) -> None:
    await served(policy, model, tmp_path)
    other = moved(model, seed=6)
    stale = moved(model, seed=6)
    stale.model.layers[2].load_state_dict(model.model.layers[2].state_dict())

    class Forgetful(VllmSync):
        """Writes all layers but one."""

        def _write(self, model: Any, target: Path) -> None:
            super()._write(stale, target)

    with pytest.raises(HostFault, match="nats off"):
        await Forgetful(policy, tmp_path, bound=1e-3).push(other, 4)
    assert await VllmSync(policy, tmp_path, bound=1e-4).push(other, 5) < 1e-4


async def test_cached_keys_of_older_weights_would_show_in_the_probe(
    policy: VllmPolicy, model: Any, tmp_path: Path
) -> None:
    await served(policy, model, tmp_path)
    other = moved(model, seed=8)
    folder = write_weights(other, tmp_path / "weights-stale", untie=True)
    await policy.http.call("POST", "/pause?mode=keep&clear_cache=false")
    await policy.http.reload(folder)
    await policy.http.resume()
    assert (await parity(policy, other, context=policy.context)).worst > 1e-2
    await policy.http.forget_prefixes()
    assert (await parity(policy, other, context=policy.context)).worst < 1e-4


async def test_weights_of_another_shape_are_refused(policy: VllmPolicy, model: Any, tmp_path: Path) -> None:
    from tests.policies.models import save_model

    with pytest.raises(UserError, match="hidden_size is 32, the server's model has 128"):
        await policy.load_directory(save_model(tmp_path / "other", "qwen3"), 9)
    await served(policy, model, tmp_path / "again", version=12)


async def test_an_id_outside_the_vocabulary_is_refused_by_name(policy: VllmPolicy) -> None:
    with pytest.raises(UserError, match="out of vocabulary"):
        await policy.generate([request([1, 99_999], 1)])


async def test_a_port_in_use_is_refused_before_anything_starts(
    running: Running, engine: Engine, tmp_path: Path
) -> None:
    port = int(running.url.rpartition(":")[2])
    server = VllmServer(model=TINY, port=port)
    with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be used"):
        async with vllm_server(server, log=tmp_path / "vllm.log", engine=engine):
            pass
