"""The collector over HTTP: tokens are kept as sampled, prompts grow by ids, and what our side lost is played again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agenthub.client import Hub
from agenthub.errors import HostFault
from agenthub.policies.bytes import byte_tokenizer
from agenthub.policy import Request, Sampling
from agenthub.records import Finish, Generation, Outcome, Stop, floats, ints
from agenthub.renderers import make_renderer
from agenthub.rollout import Collector, Play, turn_seed
from agenthub.rollout.types import CollectStats, Meter
from tests.server.harness import hub

CODE, ANSWER = "```python\n1+1\n```", "\\boxed{42}"


class TextPolicy:
    """Samples what a function of (turn, request) says, and ends each turn with the end token."""

    name, lockstep = "policy", True

    def __init__(self, say: Callable[[int, Request], str]) -> None:
        self.tokenizer = byte_tokenizer()
        self.requests: list[Request] = []
        self.forgotten: list[str] = []
        self._say, self._turns = say, dict[str, int]()

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        made = []
        for request in requests:
            turn = self._turns.get(request.episode, 0)
            self._turns[request.episode] = turn + 1
            self.requests.append(request)
            ids = self.tokenizer.encode(self._say(turn, request), add_special_tokens=False)
            ids = [*ids, min(request.stop_ids)][: request.sampling.max_tokens]
            made.append(
                Generation(
                    policy=self.name,
                    prompt_ids=request.prompt_ids,
                    ids=ints(ids),
                    logprobs=floats([-0.1] * len(ids)),
                    versions=((0, 7),),
                    finish=Finish.STOP,
                )
            )
        return made

    def weight_version(self) -> int:
        return 7

    async def forget(self, episodes: Sequence[str]) -> None:
        self.forgotten += episodes

    async def close(self) -> None:
        return None


def collector(client: Hub, policy: TextPolicy, **options: Any) -> Collector:
    renderer = make_renderer("plain", policy.tokenizer, "fence_strict")
    return Collector(client, policy, renderer, sampling=Sampling(max_tokens=64), **options)


def play(task: str = "t0", count: int = 2, group: str = "g") -> Play:
    return Play(suite="fakes", task=task, count=count, group=group)


def code_then_answer(turn: int, request: Request) -> str:
    del request
    return ANSWER if turn else CODE


async def test_each_prompt_is_the_last_one_with_the_turn_and_what_it_showed(tmp_path: Path) -> None:
    policy = TextPolicy(code_then_answer)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        made = await collector(client, policy).collect([play(), play("t1", 1, "h")], seed=3)
    assert [(one.task, one.group, one.member) for one in made] == [
        ("fakes/t0", "g", 0),
        ("fakes/t0", "g", 1),
        ("fakes/t1", "h", 0),
    ]
    for trajectory in made:
        assert (trajectory.stop, trajectory.reward) == (Stop.ANSWERED, 1.0)
        first, second = (turn.generation for turn in trajectory.turns)
        assert first is not None
        assert second is not None
        grown = np.concatenate([first.prompt_ids, first.ids])
        assert second.prompt_ids[: grown.size].tolist() == grown.tolist()
        shown = policy.tokenizer.decode(second.prompt_ids[grown.size :].tolist())
        assert "1+1#1" in shown
    assert len(policy.forgotten) == 3


async def test_blanked_tools_show_the_policy_nothing(tmp_path: Path) -> None:
    policy = TextPolicy(code_then_answer)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        (made,) = await collector(client, policy, blank_tools=True).collect([play(count=1)], seed=3)
    last = made.turns[1].generation
    assert last is not None
    assert "1+1#1" not in policy.tokenizer.decode(last.prompt_ids.tolist())
    assert "1+1#1" in made.turns[0].observations[0].text


async def test_seeds_belong_to_the_turn_and_not_to_what_is_played_beside_it(tmp_path: Path) -> None:
    policy = TextPolicy(code_then_answer)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        await collector(client, policy).collect([play(count=2)], seed=3)
    assert sorted(request.seed for request in policy.requests) == sorted(
        turn_seed(3, "g", member, turn) for member in (0, 1) for turn in (0, 1)
    )
    assert turn_seed(3, "g", 0, 0) != turn_seed(4, "g", 0, 0)


async def test_a_member_that_our_side_lost_is_played_again_with_the_same_seeds(tmp_path: Path) -> None:
    lost: list[int] = []

    def once(turn: int, request: Request) -> str:
        if turn == 0 and not lost:
            lost.append(request.seed)
            return "```python\nhost\n```"
        return code_then_answer(turn, request)

    policy = TextPolicy(once)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        player = collector(client, policy)
        made = await player.collect([play(count=3)], seed=3)
    assert [one.member for one in made] == [0, 1, 2]
    assert all(one.outcome is Outcome.OK for one in made)
    assert player.stats.replayed == 1
    assert [request.seed for request in policy.requests].count(lost[0]) == 2


async def test_members_of_a_broken_task_are_not_played_again_and_the_others_are(tmp_path: Path) -> None:
    policy = TextPolicy(code_then_answer)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        task = await served.dispatcher.catalog.task("fakes", "t1")
        served.dispatcher.catalog.quarantine.add(task, "the tests do not load")
        plays = [play("t1", group="broken"), play("t0", group="sound")]
        played = await collector(client, policy).collect(plays, seed=0)
    assert [(it.group, it.member, it.outcome) for it in played] == [
        ("broken", 0, Outcome.ENV_FAULT),
        ("broken", 1, Outcome.ENV_FAULT),
        ("sound", 0, Outcome.OK),
        ("sound", 1, Outcome.OK),
    ]
    assert played[0].reward is None and "do not load" in played[0].reason


async def test_a_member_that_is_always_lost_stops_the_run_and_says_why(tmp_path: Path) -> None:
    policy = TextPolicy(lambda turn, request: "```python\nhost\n```")
    async with hub(tmp_path) as served, Hub(served.url) as client:
        with pytest.raises(HostFault, match=r"g\[0\] first: the supervisor is gone"):
            await collector(client, policy).collect([play(count=1)], seed=3)


async def test_episodes_that_cannot_be_opened_by_our_fault_are_a_host_fault(tmp_path: Path) -> None:
    policy = TextPolicy(code_then_answer)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        with pytest.raises(HostFault, match="no box could be started"):
            await collector(client, policy).collect([play("broken", 1)], seed=3)


async def test_an_episode_that_outgrows_the_models_context_is_over_and_the_run_is_not(tmp_path: Path) -> None:
    policy = TextPolicy(code_then_answer)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        whole = (await collector(client, policy).collect([play(count=1)], seed=3))[0]
        assert whole.turns[1].generation is not None
        # Room for the first turn, and none for a token after what it showed.
        policy.context = whole.turns[1].generation.prompt_ids.size  # type: ignore[attr-defined]
        (short,) = await collector(client, policy).collect([play(count=1, group="h")], seed=3)
    assert (short.stop, short.outcome, short.reward) == (Stop.OUT_OF_TOKENS, Outcome.OK, 0.0)
    assert [turn.generation.ids.size > 0 for turn in short.turns if turn.generation] == [True, False]
    assert short.turns[1].generation is not None and short.turns[1].generation.finish is Finish.LENGTH


async def test_what_comes_after_a_complete_action_is_cut_and_counted(tmp_path: Path) -> None:
    policy = TextPolicy(lambda turn, request: (CODE + "\nnonsense") if turn == 0 else ANSWER)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        (made,) = await collector(client, policy).collect([play(count=1)], seed=3)
    first = made.turns[0].generation
    assert first is not None
    assert first.dropped == len("\nnonsense") + 1
    assert policy.tokenizer.decode(first.ids.tolist()) == CODE == made.turns[0].text


def test_work_that_overlaps_is_counted_once() -> None:
    times = iter([10.0, 13.0, 20.0, 21.0])
    stats = CollectStats()
    meter = Meter(stats, "generate_s", clock=lambda: next(times))
    with meter, meter, meter:
        pass
    assert stats.generate_s == 3.0
    with pytest.raises(RuntimeError), meter:
        raise RuntimeError
    assert (stats.generate_s, stats.environment_s) == (4.0, 0.0)
