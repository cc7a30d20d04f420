"""What the hub promises, over each of its three faces."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.codec import decode, trajectory_hash
from agenthub.records import Trajectory
from tests.fakes import FakeFactory
from tests.server.faces import FACES, Face, Routes
from tests.server.harness import CALL, RunningHub, hub, winning


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[RunningHub]:
    async with hub(tmp_path) as running:
        yield running


@pytest.fixture(params=sorted(FACES))
async def face(request: pytest.FixtureRequest, served: RunningHub) -> AsyncIterator[Face]:
    async with FACES[request.param](served.url) as opened:
        yield opened


async def create(face: Face, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"request_id": "r", "suite": "fakes", "task": "t0"} | changes
    status, answer = await face.call("create", **body)
    assert status == 201, answer
    return dict(answer)


async def one(face: Face, **changes: Any) -> str:
    return str((await create(face, **changes))["episodes"][0]["id"])


def code(body: Any) -> str:
    return str(body["error"]["code"])


async def test_an_episode_from_opening_to_record(face: Face) -> None:
    made = await create(face, count=2, group="g", lease_s=30)
    assert (made["group"], [row["member"] for row in made["episodes"]]) == ("g", [0, 1])
    opened = made["episodes"][0]
    assert opened["observation"]["messages"] == [{"role": "user", "content": "?"}]
    assert opened["info"]["task"] == "t0"
    assert opened["lease_expires_s"] == 30
    assert "'42'" not in str(made)
    status, done = await face.call("step", episode=opened["id"], turn=0, action=CALL)
    assert (status, done["turn"], done["reward"], done["terminated"]) == (200, 0, 0.0, False)
    assert done["observation"]["observations"][0]["parts"][0]["text"] == "1+1#1"
    assert (await face.call("state", episode=opened["id"]))[1]["turn"] == 1
    status, last = await face.call("step", episode=opened["id"], turn=1, action=winning())
    assert (last["terminated"], last["reward"], last["info"]["stop"]) == (True, 1.0, "answered")
    status, record = await face.call("trajectory", episode=opened["id"])
    trajectory = decode(Trajectory, record["trajectory"])
    assert record["hash"] == last["info"]["hash"] == trajectory_hash(trajectory)
    assert sum(turn.reward for turn in trajectory.turns) == trajectory.reward == 1.0
    state = (await face.call("state", episode=opened["id"]))[1]
    assert (state["done"], state["outcome"], state["reward"], state["turn"]) == (True, "ok", 1.0, 2)


async def test_the_same_step_again_gives_the_same_answer(face: Face) -> None:
    episode = await one(face)
    first = await face.call("step", episode=episode, turn=0, action=CALL)
    assert await face.call("step", episode=episode, turn=0, action=CALL) == first
    await face.call("step", episode=episode, turn=1, action=CALL)
    assert await face.call("step", episode=episode, turn=0, action=CALL) == first
    last = await face.call("step", episode=episode, turn=2, action=winning())
    assert await face.call("step", episode=episode, turn=0, action=CALL) == first
    assert await face.call("step", episode=episode, turn=2, action=winning()) == last
    assert FakeFactory.made[0].calls == 2


async def test_another_body_for_a_played_turn_is_a_conflict(face: Face) -> None:
    episode = await one(face)
    await face.call("step", episode=episode, turn=0, action=CALL)
    status, body = await face.call("step", episode=episode, turn=0, action=winning())
    assert (status, code(body)) == (409, "turn_conflict")


async def test_a_turn_out_of_order_says_which_is_next(face: Face) -> None:
    episode = await one(face)
    status, body = await face.call("step", episode=episode, turn=1, action=CALL)
    assert (status, code(body), body["error"]["detail"]["expected"]) == (409, "turn_order", 0)


async def test_a_step_that_an_end_cuts_off_is_gone(face: Face, served: RunningHub) -> None:
    episode = await one(face)
    slow = {"calls": [{"tool": "python", "arguments": {"code": "slow 20"}}]}
    step = asyncio.create_task(face.call("step", episode=episode, turn=0, action=slow))
    await asyncio.sleep(0.3)
    async with Routes(served.url) as other:
        assert (await other.call("delete", episode=episode))[1]["stop"] == "cancelled"
    status, body = await step
    assert (status, code(body)) == (410, "episode_done")


async def test_a_step_on_an_ended_episode_is_gone(face: Face) -> None:
    episode = await one(face)
    await face.call("step", episode=episode, turn=0, action=winning())
    status, body = await face.call("step", episode=episode, turn=1, action=CALL)
    assert (status, code(body)) == (410, "episode_done")
    assert (await face.call("lease", episode=episode, lease_s=5))[0] == 410
    assert (await face.call("file_get", episode=episode, path="a"))[0] == 410


async def test_an_unknown_episode_is_not_found(face: Face) -> None:
    for op, more in (
        ("step", {"turn": 0, "action": CALL}),
        ("state", {}),
        ("trajectory", {}),
        ("delete", {}),
        ("lease", {}),
        ("file_get", {"path": "a"}),
        ("file_put", {"path": "a", "data": b""}),
    ):
        status, body = await face.call(op, episode="ep-none", **more)
        assert (status, code(body)) == (404, "unknown_episode"), op


async def test_the_same_request_id_opens_once(face: Face) -> None:
    first = await create(face, count=3)
    assert await create(face, count=3) == first
    assert len(FakeFactory.made) == 3
    status, body = await face.call("create", request_id="r", suite="fakes", task="t1")
    assert (status, code(body)) == (409, "request_conflict")


async def test_a_seed_draws_the_same_task_and_stays_in_its_split(face: Face) -> None:
    drawn = [
        (await create(face, request_id=f"r{i}", task=None, seed=7, split="train"))["episodes"][0]["info"]["task"]
        for i in range(2)
    ]
    assert drawn[0] == drawn[1]
    held = await create(face, request_id="h", task=None, seed=1, split="test")
    assert held["episodes"][0]["info"]["task"] == "held"


async def test_a_name_that_is_nearly_right_is_named(face: Face) -> None:
    status, body = await face.call("create", request_id="r", suite="fake", task="t0")
    assert status == 404 and "did you mean 'fakes'" in body["error"]["message"]
    status, body = await face.call("create", request_id="r", suite="fakes", task="helt")
    assert status == 404 and "did you mean 'held'" in body["error"]["message"]
    status, body = await face.call("tasks", suite="fakes", split="tets")
    assert status == 404 and "did you mean 'test'" in body["error"]["message"]


async def test_when_one_box_cannot_start_none_is_left(face: Face, served: RunningHub) -> None:
    status, body = await face.call("create", request_id="r", suite="fakes", task="broken", count=5)
    assert (status, code(body)) == (503, "infra_fault")
    assert len(served.dispatcher.table) == 0
    assert all(box.closed for box in FakeFactory.made)
    assert (await face.call("create", request_id="r", suite="fakes", task="t0"))[0] == 201  # the id is free again


async def test_more_than_the_task_allows_is_refused(face: Face) -> None:
    status, body = await face.call("create", request_id="r", suite="fakes", task="t0", limits={"max_turns": 500})
    assert status == 422 and "the task allows 4" in body["error"]["message"]


async def test_a_full_hub_says_so(face: Face) -> None:
    await create(face, count=60)
    status, body = await face.call("create", request_id="s", suite="fakes", task="t0", count=10)
    assert (status, code(body)) == (429, "too_many_episodes")


async def test_deleting_ends_an_episode_once(face: Face, served: RunningHub) -> None:
    episode = await one(face)
    await face.call("step", episode=episode, turn=0, action=CALL)
    assert (await face.call("trajectory", episode=episode))[0] == 409
    first = await face.call("delete", episode=episode)
    assert (first[1]["stop"], first[1]["reward"], first[1]["done"]) == ("cancelled", None, True)
    assert await face.call("delete", episode=episode) == first
    assert len((await face.call("trajectory", episode=episode))[1]["trajectory"]["turns"]) == 1
    assert FakeFactory.made[0].closed and len(served.dispatcher.table) == 0


async def test_files_go_in_and_out(face: Face) -> None:
    episode = await one(face)
    data = bytes(range(256))
    status, body = await face.call("file_put", episode=episode, path="a/b.bin", data=data)
    assert (status, body["bytes"]) == (200, 256)
    assert await face.call("file_get", episode=episode, path="a/b.bin") == (200, data)
    assert (await face.call("file_get", episode=episode, path="missing"))[0] == 422


async def test_a_blob_is_kept_under_the_hash_of_its_content(face: Face) -> None:
    data = b"\x00image\xff"
    name = hashlib.sha256(data).hexdigest()
    assert (await face.call("blob_get", sha256=name))[0] == 404
    assert (await face.call("blob_put", sha256=name, data=data))[0] == 201
    assert await face.call("blob_get", sha256=name) == (200, data)
    status, body = await face.call("blob_put", sha256=name, data=b"other")
    assert (status, code(body)) == (422, "hash_mismatch")
    assert (await face.call("blob_get", sha256="../../etc/passwd"))[0] in (404, 422)


async def test_tasks_come_in_pages_and_never_with_a_target(face: Face) -> None:
    status, page = await face.call("tasks", suite="fakes", split="train", offset=1, limit=2)
    assert (status, page["total"], [row["id"] for row in page["tasks"]]) == (200, 5, ["t1", "t2"])
    assert "'42'" not in str(page)
    assert (await face.call("suite", suite="fakes"))[1]["splits"] == {"train": 5, "test": 1}
    assert (await face.call("suites"))[1]["suites"][0]["name"] == "fakes"
    assert "step" in (await face.call("capabilities"))[1]["operations"]


@pytest.mark.parametrize(
    ("op", "params", "field"),
    [
        ("create", {"request_id": "r", "suite": "fakes", "task": "t0", "cuont": 2}, "cuont"),
        ("create", {"request_id": "r", "suite": "fakes"}, "task"),
        ("create", {"request_id": "r", "suite": "fakes", "task": "t0", "count": 0}, "count"),
        ("create", {"request_id": "r", "suite": "fakes", "task": "t0", "lease_s": "soon"}, "lease_s"),
        ("step", {"episode": "e", "turn": -1, "action": CALL}, "turn"),
        ("step", {"episode": "e", "turn": 0, "action": {}}, "action"),
        ("step", {"episode": "e", "turn": 0, "action": {"calls": [{"tool": 3}]}}, "action.calls.0.tool"),
        ("tasks", {"suite": "fakes", "limit": 100_000}, "limit"),
        ("tasks", {"suite": "fakes", "page": 1}, "page"),
        ("state", {"episode": "e" * 500}, "episode"),
    ],
)
async def test_a_field_that_is_wrong_is_named(face: Face, op: str, params: dict[str, Any], field: str) -> None:
    status, body = await face.call(op, **params)
    assert (status, code(body)) == (422, "invalid")
    assert field in body["error"]["message"], body
    assert set(body["error"]) == {"code", "message", "detail"}


@pytest.mark.parametrize(
    "text",
    [
        '{"turn":0,"action":{"answer":"1"}',
        '{"turn":NaN,"action":{"answer":"1"}}',
        '{"turn":0,"action":{"calls":[{"arguments":{"x":1e999}}]}}',
        '{"turn":0,"action":{"answer":"\\ud800"}}',
        '{"turn":' + "9" * 6000 + "}",
        '{"turn":' + "[" * 10_000 + "]" * 10_000 + "}",
    ],
    ids=["cut", "nan", "infinite", "surrogate", "huge", "deep"],
)
async def test_what_is_not_json_is_refused_and_disturbs_nothing(face: Face, text: str) -> None:
    episode = await one(face)
    if "1e999" in text:
        text = text.replace('"turn"', f'"episode":"{episode}","turn"') if type(face).__name__ != "Routes" else text
    status, body = await face.raw("step", text, episode=episode)
    assert (status, code(body)) == (400, "malformed_json"), body
    assert (await face.call("step", episode=episode, turn=0, action=CALL))[0] == 200


async def test_numbers_too_large_for_a_field_are_refused(face: Face) -> None:
    episode = await one(face)
    for turn in (2**63, 10**300):
        assert (await face.call("step", episode=episode, turn=turn, action=CALL))[0] in (409, 422)


async def test_duplicates_at_once_are_played_once(face: Face, served: RunningHub) -> None:
    episode = await one(face)
    slow = {"calls": [{"tool": "python", "arguments": {"code": "slow 0.2"}}]}
    async with FACES["routes"](served.url) as a, FACES["websocket"](served.url) as b, FACES["ndjson"](served.url) as c:
        answers = await asyncio.gather(
            *(it.call("step", episode=episode, turn=0, action=slow) for it in (face, a, b, c))
        )
    assert all(answer == answers[0] and answer[0] == 200 for answer in answers)
    assert FakeFactory.made[0].calls == 1


async def test_a_step_in_progress_refuses_others(face: Face, served: RunningHub) -> None:
    episode = await one(face)
    slow = {"calls": [{"tool": "python", "arguments": {"code": "slow 1.5"}}]}
    async with FACES["routes"](served.url) as other:
        playing = asyncio.create_task(other.call("step", episode=episode, turn=0, action=slow))
        await asyncio.sleep(0.1)
        status, body = await face.call("step", episode=episode, turn=0, action=CALL)
        assert (status, code(body)) == (409, "turn_conflict")
        status, body = await face.call("step", episode=episode, turn=1, action=CALL)
        assert (status, code(body)) == (409, "turn_order")
        assert (await playing)[0] == 200


async def test_a_box_that_is_lost_or_failed_is_an_answer(face: Face) -> None:
    made = await create(face, count=2)
    for row, word, outcome, reward in zip(
        made["episodes"], ("lost", "host"), ("model_fault", "infra_fault"), (0.0, None), strict=True
    ):
        action = {"calls": [{"tool": "python", "arguments": {"code": word}}]}
        status, done = await face.call("step", episode=row["id"], turn=0, action=action)
        assert (status, done["info"]["outcome"], done["reward"]) == (200, outcome, reward)


async def test_tokens_that_do_not_fit_leave_the_episode_as_it_was(face: Face) -> None:
    episode = await one(face)
    told = {
        "finish": "stop",
        "prompt_tokens": 2,
        "completion_tokens": 5,
        "prompt_ids": [1, 2],
        "ids": [3],
        "logprobs": [0.0],
    }
    status, body = await face.call("step", episode=episode, turn=0, action=CALL, generation=told)
    assert (status, code(body)) == (422, "token_mismatch")
    assert (await face.call("step", episode=episode, turn=0, action=CALL))[0] == 200
