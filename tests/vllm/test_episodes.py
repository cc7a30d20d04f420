"""Greedy episodes of untrained weights over a real hub: over vLLM they are the embedded policy's, token for token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agenthub.policies.embedded import TINY, EmbeddedPolicy, load_model
from agenthub.policies.vllm import VllmPolicy
from agenthub.policy import Policy, Sampling
from agenthub.rollout import Collector, Play
from agenthub.trainers.hub import hub_of, protocol_of, task_ids
from agenthub.trainers.run import renderer_for
from agenthub.trainers.sync.vllm import VllmSync

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

SUITE, COUNT = "arithmetic", 40


async def test_greedy_episodes_are_the_embedded_policys_token_for_token(policy: VllmPolicy, tmp_path: Path) -> None:
    model, tokenizer = load_model(TINY)
    await VllmSync(policy, tmp_path / "serving", bound=1e-4).push(model, 0)
    embedded = EmbeddedPolicy()
    async with hub_of(None, tmp_path / "hub") as hub:
        renderer = renderer_for("plain", tokenizer, await protocol_of(hub, SUITE))
        tasks = (await task_ids(hub, SUITE, "eval"))[:COUNT]
        played = []
        players: list[Policy] = [embedded, policy]
        for number, one in enumerate(players):
            sampling = Sampling(temperature=0.0, max_tokens=40)
            plays = [Play(suite=SUITE, task=task, count=1, group=f"{number}/{task}") for task in tasks]
            played.append(await Collector(hub, one, renderer, sampling=sampling).collect(plays, seed=0))
    await embedded.close()
    assert [one.task for one in played[0]] == [one.task for one in played[1]]
    assert max(len(one.turns) for one in played[0]) > 1
    for ours, theirs in zip(played[1], played[0], strict=True):
        assert len(ours.turns) == len(theirs.turns)
        for left, right in zip(ours.turns, theirs.turns, strict=True):
            assert left.generation is not None and right.generation is not None
            assert left.generation.prompt_ids.tolist() == right.generation.prompt_ids.tolist()
            assert left.generation.ids.tolist() == right.generation.ids.tolist()
            np.testing.assert_allclose(left.generation.logprobs, right.generation.logprobs, atol=1e-4)
        assert (ours.reward, ours.stop) == (theirs.reward, theirs.stop)
