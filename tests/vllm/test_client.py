"""What the vLLM policy does when its server misbehaves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agenthub.errors import HostFault, UserError
from agenthub.policies import vllm
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_sampling import entropy_of, first_difference
from agenthub.records import Finish, ints
from tests.policies.models import request
from tests.vllm.fake_server import FakeVllm, serving, tokens


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


async def test_tokens_come_with_their_log_probabilities_and_the_version_that_was_named(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    (made,) = await policy.generate([request([1, 2], 5, max_tokens=7)])
    assert server[0].version == "0"
    assert made.ids.tolist() == tokens(5, 7)
    assert made.logprobs.tolist() == [-0.5] * 7
    assert made.versions == ((0, 0),)
    assert made.finish is Finish.LENGTH
    assert made.entropies is None


async def test_a_complete_action_gives_the_request_up_and_drops_what_came_after(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    server[0].delay_s = 0.01
    asked = request([1], 9, max_tokens=60, complete=lambda ids: len(ids) == 3)
    (made,) = await policy.generate([asked])
    assert made.ids.tolist() == tokens(9, 60)[:3]
    assert made.finish is Finish.STOP
    assert made.dropped < 57
    assert server[0].aborted == {f"fake-{server[0].bodies[0]['request_id']}"}


async def test_a_broken_stream_is_sampled_again_whole_under_the_same_seed_and_another_id(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    broken: set[str] = set()

    def trouble(key: str, place: int, event: dict[str, Any]) -> dict[str, Any] | None:
        if place == 4 and len(broken) < 3 and key not in broken:
            broken.add(key)
            return None
        return event

    server[0].trouble = trouble
    made = await policy.generate([request([1], seed, max_tokens=9) for seed in range(6)])
    assert [one.ids.tolist() for one in made] == [tokens(seed, 9) for seed in range(6)]
    assert policy.retried == 3
    keys = [body["request_id"] for body in server[0].bodies]
    assert len(keys) == len(set(keys)) == 9


async def test_a_busy_server_is_asked_again_and_a_dead_one_is_not_asked_for_ever(
    server: tuple[FakeVllm, str],
) -> None:
    server[0].refuse = [503, 429]
    policy = VllmPolicy(server[1], retry_s=20.0)
    await policy.attach()
    assert (await policy.generate([request([1], 1)]))[0].ids.size == 12
    assert policy.retried == 2
    await policy.close()
    impatient = VllmPolicy("http://127.0.0.1:9", retry_s=0.2)
    with pytest.raises(HostFault, match="tried for"):
        await impatient.attach()
    await impatient.close()


async def test_a_person_is_told_once_that_a_policy_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm, "_QUIET_S", 0.0)
    waiting = VllmPolicy("http://127.0.0.1:9", retry_s=0.6)
    for _ in range(2):
        with pytest.raises(HostFault, match="tried for"):
            await waiting.attach()
    await waiting.close()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "agenthub.policy"]
    assert "waiting up to 0.6 s for policy" in line


async def test_a_server_whose_process_is_over_is_not_waited_for(server: tuple[FakeVllm, str]) -> None:
    gone: list[str] = []
    policy = VllmPolicy(server[1], retry_s=600.0, ended=lambda: gone[0] if gone else None)
    await policy.attach()
    server[0].trouble = lambda key, place, event: None
    gone.append("the vLLM server ended with status -9")
    with pytest.raises(HostFault, match="ended with status -9"):
        await policy.generate([request([1], 1)])
    await policy.close()


async def test_no_more_requests_are_sent_than_the_bound(server: tuple[FakeVllm, str], policy: VllmPolicy) -> None:
    server[0].delay_s = 0.002
    made = await policy.generate([request([1], seed, max_tokens=5) for seed in range(20)])
    assert [one.ids.tolist() for one in made] == [tokens(seed, 5) for seed in range(20)]
    assert server[0].most == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_token_ids": [1, 2, 9]}, "token 2 is 9, not 3"),
        ({"prompt_token_ids": [1, 2]}, "token 2 is missing, not 3"),
        ({"content": []}, "0 log-probabilities for 1 tokens"),
        ({"logprob": math.nan}, "log-probability of token 0"),
        ({"logprob": 0.5}, "is 0.5"),
        ({"token_id": 77}, "is told for 77"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place(
    server: tuple[FakeVllm, str], policy: VllmPolicy, change: dict[str, Any], message: str
) -> None:
    def trouble(key: str, place: int, event: dict[str, Any]) -> dict[str, Any]:
        if place == 0:
            logprobs = event["choices"][0]["logprobs"]
            for name, value in change.items():
                if name == "prompt_token_ids":
                    event[name] = value
                elif name == "content":
                    logprobs["content"] = value
                else:
                    logprobs["content"][0][name] = value
        return event

    server[0].trouble = trouble
    with pytest.raises(HostFault, match=message):
        await policy.generate([request([1, 2, 3], 1)])


async def test_a_push_in_the_middle_of_a_turn_shows_in_the_versions_of_its_tokens(
    server: tuple[FakeVllm, str], policy: VllmPolicy, tmp_path: Path
) -> None:
    server[0].delay_s = 0.01
    turn = asyncio.create_task(policy.generate([request([1], 3, max_tokens=40)]))
    await server[0].streaming.wait()
    await policy.load_directory(tmp_path, 1)
    (made,) = await turn
    assert [version for _, version in made.versions] == [0, 1]
    assert 0 < made.versions[1][0] < 40
    assert made.ids.tolist() == tokens(3, 40)
    assert policy.weight_version() == 1
    assert [path.split("?")[0] for path in server[0].log[-5:]] == [
        "/pause",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/update_weight_version",
        "/resume",
    ]


async def test_a_server_that_keeps_its_old_prefixes_stays_paused(
    server: tuple[FakeVllm, str], policy: VllmPolicy, tmp_path: Path
) -> None:
    server[0].keeps_prefixes = True
    with pytest.raises(HostFault, match="kept its prefix cache"):
        await policy.load_directory(tmp_path, 1)
    assert not server[0].resumed.is_set()
    assert policy.weight_version() == 0


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("model", "other", "serves 'other', not 'policy'"),
        ("engine_version", "0.20.1", "vLLM 0.20.1; expected 0.28"),
        ("version", "step-7b", "names its weights 'step-7b'"),
    ],
)
async def test_a_server_of_another_kind_is_refused_when_it_is_attached(
    server: tuple[FakeVllm, str], attribute: str, value: str, message: str
) -> None:
    setattr(server[0], attribute, value)
    policy = VllmPolicy(server[1])
    with pytest.raises(UserError, match=message):
        await policy.attach()
    await policy.close()


async def test_prompts_that_do_not_fit_are_refused_before_they_are_sent(
    server: tuple[FakeVllm, str], policy: VllmPolicy
) -> None:
    with pytest.raises(UserError, match="has 64 tokens; expected 1 to 63"):
        await policy.generate([request([1] * 64, 1)])
    (made,) = await policy.generate([request([1] * 60, 1, max_tokens=12)])
    assert made.ids.size == 4
    assert len(server[0].bodies) == 1


def test_an_entropy_over_the_whole_vocabulary_is_exact_and_a_lower_bound_else() -> None:
    chances = np.array([0.5, 0.25, 0.125, 0.125])
    exact = float(-(chances * np.log(chances)).sum())
    assert entropy_of(np.log(chances).tolist()) == pytest.approx(exact)
    assert entropy_of(np.log(chances[:2]).tolist()) == pytest.approx(1.5 * math.log(2.0))
    assert entropy_of(np.log(chances[:2]).tolist()) < exact


def test_the_first_difference_of_a_prefix_is_its_end() -> None:
    assert first_difference(ints([1, 2, 3]), ints([1, 2, 3])) == 3
    assert first_difference(ints([1, 2]), ints([1, 2, 3])) == 2
    assert first_difference(ints([1, 9, 3]), ints([1, 2, 3])) == 1
