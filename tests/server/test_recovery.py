"""What the hub after a killed one makes of each kind of episode; the sandboxes are fakes in the killed process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agenthub.client import Hub
from agenthub.client.episode import EpisodeHandle
from agenthub.codec import trajectory_hash
from agenthub.errors import HostFault, WireError
from agenthub.records import Finish
from agenthub.wire import Action, GenerationIn, LimitsIn, StepDone
from tests.server.processes import Child, child

SUITE = Path(__file__).parent / "data" / "recovered.yaml"


def cell(code: str) -> str:
    return f"```python\n{code}\n```"


def answer() -> Action:
    return Action(text=None, calls=None, answer="42")


@asynccontextmanager
async def one_hub(folder: Path, grace_s: float = 30.0) -> AsyncIterator[tuple[Hub, Child]]:
    """A hub that is killed at the end of the context, and a client of it."""
    with child(folder / "log.sqlite", "--tasks", str(SUITE), "--grace-s", str(grace_s)) as served:
        async with Hub(served.url, retry_s=20) as client:
            yield client, served
        served.process.kill()


def again(client: Hub, episode: EpisodeHandle) -> EpisodeHandle:
    """The handle of an episode, to the hub that came after."""
    episode._hub = client
    return episode


async def metric(client: Hub, name: str) -> float:
    async with client._http().get(f"{client.url}/metrics") as response:
        found = re.search(rf"^{re.escape(name)} (\S+)$", await response.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def text(done: StepDone) -> str:
    return str(done.observation["text"])


async def test_a_replay_brings_the_state_back_and_a_step_in_progress_is_played_once(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        (episode,) = await client.create("recovered", "replay")
        assert "one#1" in text(await episode.step(cell("one")))
        cut = asyncio.create_task(episode.step(cell("slow 5")))
        await asyncio.sleep(0.2)
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)
    async with one_hub(tmp_path) as (client, _):
        assert "two#2" in text(await again(client, episode).step(cell("two")))
        assert "three#3" in text(await episode.step(cell("three")))
        assert await metric(client, 'agenthub_recovered_total{way="replayed"}') == 1
    async with one_hub(tmp_path) as (client, _):
        assert (await again(client, episode).step(answer())).reward == 1.0


async def test_the_record_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    told = GenerationIn(
        policy="p", prompt_tokens=2, completion_tokens=3, prompt_ids=[1, 2], ids=[3, 4, 5],
        logprobs=[-0.5, -0.25, -1.0], weight_version=4, finish=Finish.STOP,
    )  # fmt: skip
    turns: list[Callable[[EpisodeHandle], Awaitable[StepDone]]] = [
        lambda it: it.step(cell("a"), told),
        lambda it: it.step("no call and no answer"),
        lambda it: it.step(cell("fail"), timeout_s=3.0),
        lambda it: it.step(cell("lost"), told),
        lambda it: it.step(cell("b")),
        lambda it: it.step(answer(), told),
    ]
    async with one_hub(tmp_path) as (client, _):
        whole, cut = await client.create("recovered", "restored", count=2)
        calm = [await turn(whole) for turn in turns][-1]
        for turn in turns[:4]:
            await turn(cut)
        before = await cut.state()
    async with one_hub(tmp_path) as (client, _):
        after = await again(client, cut).state()
        assert (after.turn, after.done, after.group, after.member) == (before.turn, False, before.group, 1)
        assert (await turns[4](cut)).observation == (await _turn(client, whole, 4))
        done = await turns[5](cut)
        record = await cut.trajectory()
        assert done.info["hash"] == calm.info["hash"] == trajectory_hash(record)
        assert [turn.seconds > 0 for turn in record.turns] == [True] * 6
        assert record.turns[0].generation is not None and record.turns[0].generation.ids.tolist() == [3, 4, 5]


async def _turn(client: Hub, episode: EpisodeHandle, turn: int) -> Any:
    step = {"episode": episode.id, "turn": turn, "action": {"text": cell("b")}}
    return (await client.call("step", step))["observation"]


async def test_a_replay_that_differs_is_our_fault_and_names_the_turn(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        first, second = await client.create("recovered", "replay", count=2)
        await first.step(cell("chance"))
        await second.step(cell("same"))
        await second.step(cell("chance"))
    async with one_hub(tmp_path) as (client, _):
        done = await again(client, second).step(cell("more"))
        assert (done.info["outcome"], done.info["stop"], done.reward) == ("infra_fault", "sandbox_lost", None)
        assert done.info["detail"] == {"turn": 1} and "turn 1 showed '1#2'" in done.info["reason"]
        assert await metric(client, 'agenthub_recovered_total{way="lost"}') == 1
        with pytest.raises(WireError, match="has ended"):
            await client.call("step", {"episode": second.id, "turn": 3, "action": {"text": "x"}})


async def test_what_can_be_neither_kept_nor_replayed_is_our_fault(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        fresh, played = await client.create("recovered", "single", count=2)
        await played.step(cell("1"))
    async with one_hub(tmp_path) as (client, _):
        done = await again(client, played).step(answer())
        assert done.info["outcome"] == "infra_fault" and "neither be copied nor replayed" in done.info["reason"]
        # Nothing had been done in its sandbox: a fresh one is as good.
        assert (await again(client, fresh).step(answer())).reward == 1.0


@pytest.mark.parametrize("task", ["stateless", "none"])
async def test_without_state_there_is_nothing_to_bring_back(tmp_path: Path, task: str) -> None:
    async with one_hub(tmp_path) as (client, _):
        (episode,) = await client.create("recovered", task)
        await episode.step(cell("1"))
    async with one_hub(tmp_path) as (client, _):
        await again(client, episode).step(cell("2"))
        assert await metric(client, 'agenthub_recovered_total{way="none"}') == 1
        assert (await episode.step(answer())).reward == 1.0


async def test_files_from_outside_are_there_again(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        (episode,) = await client.create("recovered", "replay")
        await episode.write_file("before", b"0")
        await episode.step(cell("1"))
        await episode.write_file("between", b"1")
    async with one_hub(tmp_path) as (client, _):
        assert await again(client, episode).read_file("between") == b"1"
        assert await episode.read_file("before") == b"0"
        await episode.write_file("after", b"2")
        assert "2#2" in text(await episode.step(cell("2")))
    async with one_hub(tmp_path) as (client, _):
        assert await again(client, episode).read_file("after") == b"2"


async def test_copies_go_on_from_their_parents_past(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        (parent,) = await client.create("recovered", "replay")
        await parent.write_file("f", b"0")
        await parent.step(cell("1"))
        await parent.step(cell("2"))
        (copy,) = await parent.fork(1, 1)
        await parent.write_file("g", b"not the copy's")
        await copy.step(cell("other"))
        (second,) = await copy.fork(1)
        assert (await parent.step(answer())).reward == 1.0
    async with one_hub(tmp_path) as (client, _):
        assert "x#3" in text(await again(client, second).step(cell("x")))
        assert await second.read_file("f") == b"0"
        with pytest.raises(WireError, match="no file"):
            await second.read_file("g")
        assert "y#3" in text(await again(client, copy).step(cell("y")))
        done = await second.step(answer())
        assert done.reward == 1.0
        record = await second.trajectory()
        assert (record.parent, record.fork_turn) == (copy.id, 2)
        (third,) = await again(client, copy).fork(1)
        assert third.info["fork_turn"] == 3
        assert "z#4" in text(await third.step(cell("z")))


async def test_an_opening_asked_for_again_opens_nothing(tmp_path: Path) -> None:
    asked = {"request_id": "r", "suite": "recovered", "task": "replay", "count": 2}
    async with one_hub(tmp_path) as (client, _):
        opened = await client.call("create", asked)
        copied = {"request_id": "f", "episode": opened["episodes"][0]["id"], "count": 1}
        copies = await client.call("fork", copied)
    async with one_hub(tmp_path) as (client, _):
        assert await client.call("create", asked) == opened
        assert await client.call("fork", copied) == copies
        assert await metric(client, "agenthub_episodes_live") == 3
        step = {"episode": copies["episodes"][0]["id"], "turn": 0, "action": {"text": cell("1")}}
        assert "1#1" in (await client.call("step", step))["observation"]["text"]


async def test_limits_and_room_are_as_they_were(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        limits = LimitsIn(max_turns=2, max_tokens=None, turn_seconds=None, episode_seconds=None)
        (episode,) = await client.create("recovered", "replay", limits=limits)
        await client.create("recovered", "replay", count=3)
        await episode.step(cell("1"))
        asked = await metric(client, "agenthub_memory_requested_mb")
    async with one_hub(tmp_path) as (client, _):
        assert await metric(client, "agenthub_memory_requested_mb") == asked > 0
        assert await metric(client, "agenthub_episodes_live") == 4
        assert (await again(client, episode).step(cell("2"))).truncated
        assert await metric(client, "agenthub_memory_requested_mb") == asked * 3 / 4
        assert (await client.call("capabilities", {}))["live_episodes"] == 3


async def test_an_episode_that_nobody_comes_back_to_ends_with_its_lease(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        (episode,) = await client.create("recovered", "replay", lease_s=0.2)
        await episode.step(cell("1"))
        client.forget(episode)
    async with one_hub(tmp_path, grace_s=0.3) as (client, _):
        while await metric(client, "agenthub_episodes_live"):  # noqa: ASYNC110 - asked over the wire
            await asyncio.sleep(0.05)
        state = await client.call("state", {"episode": episode.id})
        assert (state["stop"], state["turn"]) == ("cancelled", 1)
        assert len((await again(client, episode).trajectory()).turns) == 1


async def test_one_can_be_ended_or_let_be_without_its_sandbox(tmp_path: Path) -> None:
    async with one_hub(tmp_path) as (client, _):
        episode, other = await client.create("recovered", "single", count=2)
        await episode.step(cell("1"))
        await other.step(cell("1"))
    async with one_hub(tmp_path) as (client, served):
        assert (await client.call("delete", {"episode": episode.id}))["stop"] == "cancelled"
        assert (await client.call("lease", {"episode": other.id, "lease_s": 60}))["lease_expires_s"] == 60
        with pytest.raises(HostFault, match="could not be had again"):
            await again(client, other).read_file("x")
        served.process.terminate()
        served.process.wait(10)
    async with one_hub(tmp_path) as (client, _):
        assert (await client.call("state", {"episode": other.id}))["stop"] == "cancelled"


async def test_without_a_grace_what_ran_is_lost(tmp_path: Path) -> None:
    async with one_hub(tmp_path, grace_s=0) as (client, _):
        (episode,) = await client.create("recovered", "replay")
    async with one_hub(tmp_path, grace_s=0) as (client, _):
        with pytest.raises(HostFault, match="was killed"):
            await again(client, episode).step(cell("1"))
