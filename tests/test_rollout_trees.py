"""Forked episodes over HTTP: how they come to be, that they are closed in every case, and that a kill leaves none."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agenthub.client import Hub
from agenthub.policies.bytes import byte_tokenizer
from agenthub.policy import Request, Sampling
from agenthub.records import Generation, Outcome, Trajectory, Turn
from agenthub.renderers import make_renderer
from agenthub.rollout import Collector, Growth, Play, Start
from tests.server.harness import RunningHub, hub, until
from tests.test_rollout import ANSWER, CODE, TextPolicy


class Twice:
    """Two roots, each forked twice before every turn but the first."""

    def __init__(self) -> None:
        self._next, self._roots = 2, [Start(member=0), Start(member=1)]

    def planned(self, play: Play) -> Play:
        return play

    def grow(self, play: Play) -> Growth:
        return Twice()

    def more(self, ended: Mapping[int, Trajectory]) -> Sequence[Start]:
        roots, self._roots = self._roots, []
        return roots

    def copies(self, member: int, turns: Sequence[Turn], generation: Generation) -> Sequence[int]:
        if not turns or member > 1:
            return ()
        self._next += 2
        return (self._next - 2, self._next - 1)


def twice(turn: int, request: Request) -> str:
    """Two calls, then the answer, by what the prompt shows: a copy has turns that it did not sample."""
    return ANSWER if byte_tokenizer().decode(request.prompt_ids.tolist()).count("1+1#") > 1 else CODE


def collector(client: Hub, policy: TextPolicy, **options: Any) -> Collector:
    renderer = make_renderer("plain", policy.tokenizer, "fence_strict")
    return Collector(client, policy, renderer, sampling=Sampling(max_tokens=64), strategy=Twice(), **options)


def play(task: str) -> Play:
    return Play(suite="forks", task=task, count=2, group="g")


def open_episodes(served: RunningHub) -> int:
    return len(served.dispatcher.table)


@pytest.mark.parametrize("task", ["live", "replay"])
@pytest.mark.parametrize("lockstep", [True, False])
async def test_copies_share_what_was_played_and_the_hub_holds_nothing_after(
    tmp_path: Path, task: str, lockstep: bool
) -> None:
    policy = TextPolicy(twice)
    policy.lockstep = lockstep
    async with hub(tmp_path) as served, Hub(served.url) as client:
        player = collector(client, policy)
        made = await player.collect([play(task)], seed=3)
        await until(lambda: open_episodes(served) == 0)
    roots, forked = made[:2], made[2:]
    assert [one.fork_turn for one in roots] == [None, None]
    assert sorted(one.fork_turn or 0 for one in forked) == [1, 1, 1, 1, 2, 2, 2, 2]
    for one in forked:
        assert one.parent in ("g[0]", "g[1]")
        parent = roots[int(one.parent[2])]
        assert one.turns[: one.fork_turn or 0] == parent.turns[: one.fork_turn or 0]
        # The box goes on from its parent's state: its first own call is the second or third one there.
        shown = [turn.observations[0].text for turn in one.turns if turn.calls]
        assert shown == [f"1+1#{n + 1}" for n in range(len(shown))]
        assert (one.outcome, one.reward) == (Outcome.OK, 1.0)
    assert player.stats.turns == sum(len(one.turns) - (one.fork_turn or 0) for one in made)
    assert player.stats.refused == 0


async def test_a_sandbox_that_can_be_neither_copied_nor_replayed_leaves_the_roots(tmp_path: Path) -> None:
    policy = TextPolicy(twice)
    async with hub(tmp_path) as served, Hub(served.url) as client:
        player = collector(client, policy)
        made = await player.collect([play("single")], seed=3)
    assert [one.member for one in made] == [0, 1]
    assert player.stats.refused == 8


@pytest.mark.parametrize("after", range(1, 7))
async def test_a_rollout_that_is_cancelled_leaves_no_episode(tmp_path: Path, after: int) -> None:
    """Cancelled while the n-th batch of turns is sampled, while forks are made or steps are under way after it."""
    task: asyncio.Task[Any] | None = None
    turns = 0

    def say(turn: int, request: Request) -> str:
        nonlocal turns
        turns += 1
        if turns == after and task is not None:
            asyncio.get_running_loop().call_later(0.005 * after, task.cancel)
        return twice(turn, request)

    async with hub(tmp_path) as served, Hub(served.url) as client:
        task = asyncio.ensure_future(collector(client, TextPolicy(say)).collect([play("live")], seed=3))
        await asyncio.wait([task])
        await until(lambda: open_episodes(served) == 0)
        assert (await client.capabilities())["live_episodes"] == 0


async def test_a_trainer_that_is_killed_leaves_no_episode_once_its_leases_are_over(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from agenthub.client import Hub\n"
        "from tests.test_rollout_trees import TextPolicy, collector, play\n"
        "def say(turn, request):\n"
        "    return '```python\\nslow 30\\n```' if turn > 1 else '```python\\n1+1\\n```'\n"
        "async def main():\n"
        "    async with Hub(sys.argv[1]) as client:\n"
        "        await collector(client, TextPolicy(say), lease_s=1.0).collect([play('live')], seed=3)\n"
        "asyncio.run(main())\n"
    )
    async with hub(tmp_path) as served:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, served.url, cwd=Path(__file__).parents[1]
        )
        try:
            for _ in range(3000):
                if open_episodes(served) > 5:
                    break
                assert process.returncode is None
                await asyncio.sleep(0.02)
            assert open_episodes(served) > 5
        finally:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        for _ in range(3000):
            if open_episodes(served) == 0:
                break
            await asyncio.sleep(0.02)
        assert open_episodes(served) == 0
