"""Copies of episodes over each face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.codec import decode
from agenthub.records import Trajectory
from tests.fakes import FakeFactory
from tests.server.faces import FACES, Face, Routes
from tests.server.harness import RunningHub, hub, until, winning


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[RunningHub]:
    async with hub(tmp_path) as running:
        yield running


@pytest.fixture(params=sorted(FACES))
async def face(request: pytest.FixtureRequest, served: RunningHub) -> AsyncIterator[Face]:
    async with FACES[request.param](served.url) as opened:
        yield opened


async def one(face: Face, task: str = "live", suite: str = "forks", **changes: Any) -> str:
    status, answer = await face.call("create", **({"request_id": "r", "suite": suite, "task": task} | changes))
    assert status == 201, answer
    return str(answer["episodes"][0]["id"])


async def say(face: Face, episode: str, turn: int, code: str) -> str:
    action = {"calls": [{"tool": "python", "arguments": {"code": code}}]}
    status, done = await face.call("step", episode=episode, turn=turn, action=action)
    assert status == 200, done
    return str(done["observation"]["observations"][0]["parts"][0]["text"])


async def forked(face: Face, episode: str, **changes: Any) -> list[dict[str, Any]]:
    status, answer = await face.call("fork", **({"episode": episode, "request_id": "f"} | changes))
    assert status == 201, answer
    return list(answer["episodes"])


def code(body: Any) -> str:
    return str(body["error"]["code"])


@pytest.mark.parametrize("task", ["live", "replay"])
async def test_copies_are_episodes_that_go_on_from_there(face: Face, task: str) -> None:
    parent = await one(face, task, lease_s=33)
    await say(face, parent, 0, "a")
    status, answer = await face.call("fork", episode=parent, request_id="f", count=2)
    assert status == 201
    first, second = answer["episodes"]
    assert (first["turn"], first["info"]["fork_turn"], first["info"]["parent"]) == (1, 1, parent)
    assert [first["member"], second["member"]] == [0, 1]
    assert first["lease_expires_s"] == 33
    assert first["info"]["fork"] == {"live": "native", "replay": "replay"}[task]
    assert first["observation"]["observations"][0]["parts"][0]["text"] == "a#1"
    assert first["observation"]["messages"] == [{"role": "user", "content": "?"}]
    assert [await say(face, row["id"], 1, "b") for row in (first, second)] == ["b#2", "b#2"]
    assert await say(face, parent, 1, "c") == "c#2"
    status, done = await face.call("step", episode=first["id"], turn=2, action=winning())
    assert (done["terminated"], done["reward"]) == (True, 1.0)
    record = (await face.call("trajectory", episode=first["id"]))[1]["trajectory"]
    trajectory = decode(Trajectory, record)
    assert (trajectory.parent, trajectory.fork_turn, len(trajectory.turns)) == (parent, 1, 3)
    assert trajectory.group == answer["group"]
    assert (await face.call("state", episode=second["id"]))[1]["turn"] == 2


async def test_the_same_request_copies_once(face: Face) -> None:
    parent = await one(face)
    await say(face, parent, 0, "a")
    made = await forked(face, parent, count=2)
    await say(face, parent, 1, "b")
    assert await forked(face, parent, count=2) == made
    assert len(FakeFactory.made) == 3
    for changes in ({"count": 3}, {"count": 2, "turn": 0}, {"count": 2, "episode": made[0]["id"]}):
        status, body = await face.call("fork", **{"episode": parent, "request_id": "f", **changes})
        assert (status, code(body)) == (409, "request_conflict")
    status, body = await face.call("create", request_id="f", suite="forks", task="live")
    assert (status, code(body)) == (409, "request_conflict")


async def test_duplicates_at_once_copy_once(face: Face, served: RunningHub) -> None:
    parent = await one(face, "replay")
    await say(face, parent, 0, "slow 0.2")
    async with FACES["routes"](served.url) as a, FACES["websocket"](served.url) as b:
        made = await asyncio.gather(*(forked(it, parent) for it in (face, a, b)))
    assert made[0] == made[1] == made[2]
    assert len(FakeFactory.made) == 2


async def test_an_earlier_turn_and_an_ended_episode_are_replayed(face: Face) -> None:
    parent = await one(face)
    await say(face, parent, 0, "a")
    await say(face, parent, 1, "b")
    (early,) = await forked(face, parent, turn=1)
    assert await say(face, early["id"], 1, "x") == "x#2"
    await face.call("step", episode=parent, turn=2, action=winning())
    for turn in ({}, {"turn": 3}):
        status, body = await face.call("fork", episode=parent, request_id="g", **turn)
        assert (status, code(body)) == (409, "fork_refused")
    (late,) = await forked(face, parent, request_id="h", turn=2)
    assert (late["turn"], late["info"]["parent"], late["lease_expires_s"]) == (2, parent, 60)
    assert await say(face, late["id"], 2, "x") == "x#3"
    (start,) = await forked(face, parent, request_id="i", turn=0)
    assert "text" not in start["observation"]


async def test_what_cannot_be_copied_is_refused_by_name_and_the_id_stays_free(face: Face, served: RunningHub) -> None:
    single, live, chance = (
        await one(face, "single"),
        await one(face, request_id="s"),
        await one(face, "replay", request_id="t"),
    )
    for episode, word in ((single, "a"), (live, "thread"), (chance, "chance")):
        await say(face, episode, 0, word)
    for episode, expected, said in (
        (single, "fork_refused", "'fake_single' can neither"),
        (live, "fork_refused", "second thread"),
        (chance, "not_deterministic", "turn 0 showed"),
    ):
        status, body = await face.call("fork", episode=episode, request_id="f", count=2)
        assert (status, code(body)) == (409, expected)
        assert said in body["error"]["message"]
        assert await say(face, episode, 1, "on") == "on#2"
    status, body = await face.call("fork", episode=live, request_id="f", turn=7)
    assert (status, code(body)) == (409, "fork_refused")
    assert len(served.dispatcher.table) == 3
    assert len(await forked(face, single, turn=0)) == 1


async def test_an_unknown_episode_cannot_be_copied(face: Face) -> None:
    status, body = await face.call("fork", episode="ep-none", request_id="f")
    assert (status, code(body)) == (404, "unknown_episode")
    status, body = await face.call("fork", episode="ep-none", request_id="f", count=0)
    assert (status, code(body)) == (422, "invalid")


async def test_a_copy_waits_for_the_step_in_progress(face: Face, served: RunningHub) -> None:
    parent = await one(face)
    playing = asyncio.create_task(say(face, parent, 0, "slow 1"))
    await asyncio.sleep(0.2)
    async with Routes(served.url) as other:
        (copy,) = await forked(other, parent)
    await playing
    assert copy["turn"] == 1


async def test_the_copies_of_a_hub_that_was_restarted_are_lost_as_others_are(tmp_path: Path) -> None:
    async with hub(tmp_path) as first, Routes(first.url) as face:
        parent = await one(face)
        await say(face, parent, 0, "a")
        made = await forked(face, parent)
        await face.call("step", episode=parent, turn=1, action=winning())
        # As after a kill: the log never hears of the copy's end.
        first.dispatcher.table._live.clear()
        for box in FakeFactory.made:
            await box.close()
        first.dispatcher.admission.held_mb = 0
    async with hub(tmp_path) as second, Routes(second.url) as face:
        assert await forked(face, parent) == made
        status, body = await face.call("step", episode=made[0]["id"], turn=1, action=winning())
        assert (status, code(body)) == (410, "episode_lost")
        status, body = await face.call("fork", episode=made[0]["id"], request_id="g")
        assert (status, code(body)) == (410, "episode_lost")
        (again,) = await forked(face, parent, request_id="h", turn=1)
        assert await say(face, again["id"], 1, "b") == "b#2"


async def test_a_full_log_leaves_no_copy(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        parent = await one(face)
        await say(face, parent, 0, "a")
        served.log.full = True
        status, body = await face.call("fork", episode=parent, request_id="f", count=3)
        assert (status, code(body)) == (503, "infra_fault")
        assert [box.closed for box in FakeFactory.made] == [False, True, True, True]
        served.log.full = False
        assert len(await forked(face, parent, count=3)) == 3


async def test_an_ended_episode_with_files_from_outside_is_not_replayed_past_them(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        parent = await one(face)
        await say(face, parent, 0, "a")
        await face.call("file_put", episode=parent, path="data", data=b"x")
        await say(face, parent, 1, "b")
        await face.call("step", episode=parent, turn=2, action=winning())
        status, body = await face.call("fork", episode=parent, request_id="f", turn=2)
        assert (status, code(body)) == (409, "fork_refused")
        assert (await forked(face, parent, turn=0))[0]["turn"] == 0


async def test_copies_have_leases_of_their_own(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        parent = await one(face, lease_s=0.3)
        (copy,) = await forked(face, parent)
        await face.call("lease", episode=parent, lease_s=30)
        await until(lambda: len(served.dispatcher.table) == 1)
        assert (await face.call("state", episode=copy["id"]))[1]["stop"] == "cancelled"
        assert (await face.call("state", episode=parent))[1]["done"] is False


async def test_an_episode_that_is_ended_while_it_is_copied_ends_after_it(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        parent = await one(face, "replay")
        await say(face, parent, 0, "slow 1")
        copying = asyncio.create_task(forked(face, parent))
        await asyncio.sleep(0.2)
        status, state = await face.call("delete", episode=parent)
        assert (status, state["stop"]) == (200, "cancelled")
        assert await say(face, (await copying)[0]["id"], 1, "b") == "b#2"


async def test_a_lease_does_not_run_out_while_the_episode_is_copied(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        parent = await one(face, "replay", lease_s=0.4)
        await say(face, parent, 0, "slow 1.2")
        await forked(face, parent)
        assert await say(face, parent, 1, "b") == "b#2"
