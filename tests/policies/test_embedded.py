"""The embedded policy samples what a plain loop without cache or batch samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from agenthub.errors import HostFault, UserError
from agenthub.policies.decoding import _long_columns
from agenthub.policies.embedded import EmbeddedPolicy
from agenthub.policies.sampling import draw
from agenthub.policy import Request
from agenthub.records import Finish, Generation, ints
from tests.policies.models import FAMILIES, STOP, prompts, reference, request, save_model


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp(str(request.param)), str(request.param))


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("qwen3"), "qwen3")


def _same(left: Sequence[Generation], right: Sequence[Generation]) -> bool:
    return all(
        np.array_equal(a.ids, b.ids) and a.logprobs.tobytes() == b.logprobs.tobytes()
        for a, b in zip(left, right, strict=True)
    )


def _assert_reference(policy: EmbeddedPolicy, asked: Sequence[Request], made: Sequence[Generation]) -> None:
    for one, generation in zip(asked, made, strict=True):
        ids, logprobs = reference(policy.model, one)
        assert generation.ids.tolist() == ids
        np.testing.assert_allclose(generation.logprobs, logprobs, atol=1e-4)
        assert generation.prompt_ids.tolist() == one.prompt_ids.tolist()


async def test_a_batch_equals_the_reference_at_any_temperature(folder: Path) -> None:
    policy = EmbeddedPolicy(folder)
    asked = [
        request(prompt, seed, temperature=(1.0, 0.0, 0.6)[seed % 3], max_tokens=3 + seed % 11)
        for seed, prompt in enumerate([*prompts(12), prompts(12)[0], prompts(12)[0]])
    ]
    made = await policy.generate(asked)
    _assert_reference(policy, asked, made)
    for one, generation in zip(asked, made, strict=True):
        stopped = generation.ids[-1] == STOP
        assert generation.finish is (Finish.STOP if stopped else Finish.LENGTH)
        assert stopped or generation.ids.size == one.sampling.max_tokens
        assert generation.versions == ((0, 0),)
    await policy.close()


async def test_turns_of_an_episode_equal_the_reference_with_and_without_the_kept_cache(folder: Path) -> None:
    for keep in (True, False):
        policy = EmbeddedPolicy(folder, keep_cache=keep)
        contexts = [prompt.tolist() for prompt in prompts(9, seed=3)]
        for turn in range(3):
            asked = [
                request(context, 100 * turn + row, episode=f"e{row}", max_tokens=2 + row)
                for row, context in enumerate(contexts)
            ]
            made = await policy.generate(asked)
            _assert_reference(policy, asked, made)
            contexts = [
                [*context, *generation.ids.tolist()[: 1 + row % 3], *[5, 6, 7][: row % 4]]
                for row, (context, generation) in enumerate(zip(contexts, made, strict=True))
            ]
        await policy.close()


async def test_one_long_observation_among_short_ones_equals_the_reference(qwen3: Path) -> None:
    for keep in (True, False):
        policy = EmbeddedPolicy(qwen3, keep_cache=keep)
        contexts = [prompt.tolist() for prompt in prompts(9, seed=3)]
        for turn in range(2):
            asked = [request(context, 9 * turn + row, episode=f"e{row}") for row, context in enumerate(contexts)]
            made = await policy.generate(asked)
            _assert_reference(policy, asked, made)
            contexts = [
                [*context, *generation.ids.tolist(), *[5, 6, 7] * (20 if row in (2, 5) else 1)]
                for row, (context, generation) in enumerate(zip(contexts, made, strict=True))
            ]
        await policy.close()


async def test_a_context_that_went_another_way_is_computed_again(qwen3: Path) -> None:
    policy = EmbeddedPolicy(qwen3)
    await policy.generate([request([1, 2, 3, 4], 0, episode="e"), request([9, 8], 1, episode="f")])
    asked = [request([1, 2, 50, 60], 2, episode="e"), request([9], 3, episode="f"), request([7], 4, episode="g")]
    _assert_reference(policy, asked, await policy.generate(asked))
    await policy.forget(["e", "unknown"])
    _assert_reference(policy, asked, await policy.generate(asked))
    await policy.close()


async def test_a_row_does_not_depend_on_what_is_sampled_beside_it(qwen3: Path) -> None:
    policy = EmbeddedPolicy(qwen3, batch_rows=5)
    asked = [request(prompt, seed, max_tokens=1 + seed) for seed, prompt in enumerate(prompts(13, seed=5))]
    together = await policy.generate(asked)
    backwards = await policy.generate(asked[::-1])
    alone = [(await policy.generate([one]))[0] for one in asked]
    for first, second, third in zip(together, backwards[::-1], alone, strict=True):
        assert first.ids.tolist() == second.ids.tolist() == third.ids.tolist()
        np.testing.assert_allclose(first.logprobs, third.logprobs, atol=1e-4)
    await policy.close()


async def test_the_same_requests_give_the_same_bits_whatever_came_before(qwen3: Path) -> None:
    asked = [request(prompt, seed, episode=f"e{seed}") for seed, prompt in enumerate(prompts(10, seed=8))]
    fresh = EmbeddedPolicy(qwen3)
    first = await fresh.generate(asked)
    used = EmbeddedPolicy(qwen3)
    await used.generate([request(prompt, 77, episode=f"x{row}") for row, prompt in enumerate(prompts(6, seed=9))])
    assert _same(first, await used.generate(asked))
    forgetful = EmbeddedPolicy(qwen3, keep_cache=False)
    await forgetful.generate(asked)
    assert _same(first, await forgetful.generate(asked))
    for policy in (fresh, used, forgetful):
        await policy.close()


async def test_other_seeds_give_other_tokens_and_greedy_ignores_them(qwen3: Path) -> None:
    policy = EmbeddedPolicy(qwen3)
    sampled = await policy.generate([request([1, 2, 3], seed) for seed in range(8)])
    assert len({tuple(generation.ids.tolist()) for generation in sampled}) > 4
    greedy = await policy.generate([request([1, 2, 3], seed, temperature=0.0) for seed in range(4)])
    assert len({tuple(generation.ids.tolist()) for generation in greedy}) == 1
    await policy.close()


async def test_a_complete_action_ends_a_turn(qwen3: Path) -> None:
    policy = EmbeddedPolicy(qwen3)
    made = await policy.generate([request([4, 5], 3, complete=lambda ids: len(ids) == 4), request([4, 5], 3)])
    assert made[0].ids.size == 4 and made[0].finish is Finish.STOP
    assert made[1].ids[:4].tolist() == made[0].ids.tolist()
    await policy.close()


async def test_the_context_bounds_a_turn_and_a_prompt(qwen3: Path, tmp_path: Path) -> None:
    policy = EmbeddedPolicy(save_model(tmp_path, "qwen3", context=16))
    made = await policy.generate([request([1] * 13, 0, max_tokens=99)])
    assert made[0].ids.size <= 3
    with pytest.raises(UserError, match="a prompt has 16 tokens; expected 1 to 15"):
        await policy.generate([request([1] * 16, 0)])
    with pytest.raises(UserError, match="a prompt has 0 tokens"):
        await policy.generate([request([], 0)])
    assert await policy.generate([]) == []
    await policy.close()
    with pytest.raises(HostFault, match="is closed"):
        await policy.generate([request([1], 0)])
    await policy.close()


async def test_new_weights_have_a_version_and_no_old_cache(qwen3: Path) -> None:
    policy = EmbeddedPolicy(qwen3)
    asked = [request([1, 2, 3], 0, episode="e")]
    before = await policy.generate(asked)
    policy.load_state({name: value * 1.5 for name, value in policy.model.state_dict().items()}, 3)
    assert policy.weight_version() == 3
    after = await policy.generate(asked)
    assert after[0].versions == ((0, 3),)
    assert not _same(before, after)
    _assert_reference(policy, asked, after)
    with pytest.raises(UserError, match="do not fit the model"):
        policy.load_state({"lm_head.weight": torch.zeros(2, 2)}, 4)
    assert policy.weight_version() == 3
    await policy.close()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"no config\.json"),
        ("tokenizer", "no tokenizer; expected one of tokenizer.json"),
        ("model.safetensors", "cannot be loaded as a causal language model"),
    ],
)
def test_a_directory_that_cannot_be_loaded_says_what_is_missing(missing: str, message: str, tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    for file in tmp_path.iterdir():
        if file.name.startswith(missing):
            file.unlink()
    with pytest.raises(UserError, match=message):
        EmbeddedPolicy(tmp_path)
    with pytest.raises(UserError, match="no such directory; a policy is 'tiny' or"):
        EmbeddedPolicy(tmp_path / "nowhere")


def test_a_draw_is_the_inverse_of_the_cumulative_distribution() -> None:
    chances = torch.tensor([[0.0, 0.25, 0.0, 0.75]])
    logits = chances.log().expand(4, 4)
    uniforms = torch.tensor([0.0, 0.2499, 0.2501, 0.99999994])
    tokens, logprobs, entropies = draw(logits, torch.ones(4), uniforms)
    assert tokens.tolist() == [1, 1, 3, 3]
    np.testing.assert_allclose(logprobs.exp(), [0.25, 0.25, 0.75, 0.75], rtol=1e-6)
    np.testing.assert_allclose(entropies, -0.25 * np.log(0.25) - 0.75 * np.log(0.75), rtol=1e-6)
    assert ints(tokens.numpy()).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize(
    ("lengths", "columns"), [([9] * 8, 0), ([9], 0), ([9] * 31 + [100], 91), ([100] * 31 + [9], 0), ([9, 10, 50], 40)]
)
def test_a_few_long_rows_are_computed_apart(lengths: list[int], columns: int) -> None:
    assert _long_columns(lengths) == columns
