"""Clients that vanish, garbage on the wire, leases that run out, a log that cannot be written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agenthub.errors import WireError
from agenthub.server.params import parse_json
from tests.fakes import FakeFactory
from tests.server.faces import Routes, WebSocket
from tests.server.harness import CALL, MAX_BODY, RunningHub, hub, until, winning


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[RunningHub]:
    async with hub(tmp_path) as running:
        yield running


async def opened(face: Routes | WebSocket, **changes: Any) -> str:
    body: dict[str, Any] = {"request_id": "r", "suite": "fakes", "task": "t0"} | changes
    status, answer = await face.call("create", **body)
    assert status == 201, answer
    return str(answer["episodes"][0]["id"])


def slow(seconds: float) -> dict[str, Any]:
    return {"calls": [{"tool": "python", "arguments": {"code": f"slow {seconds}"}}]}


async def test_a_step_goes_on_when_its_client_vanishes(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        episode = await opened(face)
        leaving = asyncio.create_task(face.call("step", episode=episode, turn=0, action=slow(0.3)))
        await asyncio.sleep(0.1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        status, done = await face.call("step", episode=episode, turn=0, action=slow(0.3))
        assert (status, done["turn"]) == (200, 0)
        assert FakeFactory.made[0].calls == 1


async def test_episodes_outlive_the_socket_that_opened_them(served: RunningHub) -> None:
    async with WebSocket(served.url) as first:
        episode = await opened(first)
        await first._socket.send_str(
            json.dumps({"id": 1, "op": "step", "episode": episode, "turn": 0, "action": slow(0.2)})
        )
        await asyncio.sleep(0.05)
    async with WebSocket(served.url) as second:
        status, _ = await second.call("step", episode=episode, turn=0, action=slow(0.2))
        assert status == 200
    assert FakeFactory.made[0].calls == 1


async def test_a_late_step_of_a_batch_says_so_and_goes_on(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        quick, late = await opened(face), await opened(face, request_id="s")
        steps = [
            {"episode": quick, "turn": 0, "action": CALL},
            {"episode": late, "turn": 0, "action": slow(0.4)},
        ]
        body = json.dumps({"steps": steps, "deadline_s": 0.15})
        async with face._session.post(f"{served.url}/v1/steps", data=body) as response:
            lines = [json.loads(line) async for line in response.content]
        assert lines[0]["episode"] == quick and lines[0]["turn"] == 0
        assert lines[1] == {"episode": late, "turn": 0, "late": True}
        assert (await face.call("step", episode=late, turn=0, action=slow(0.4)))[0] == 200
        assert FakeFactory.made[1].calls == 1


async def test_a_lease_that_runs_out_ends_the_episode_and_a_heartbeat_keeps_it(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        left = await opened(face, lease_s=0.2)
        kept = await opened(face, lease_s=0.2, request_id="s")
        assert (await face.call("lease", episode=kept, lease_s=60))[1]["lease_expires_s"] == 60
        await until(lambda: len(served.dispatcher.table) == 1)
        status, body = await face.call("step", episode=left, turn=0, action=CALL)
        assert (status, body["error"]["code"]) == (410, "episode_done")
        assert (await face.call("state", episode=left))[1]["stop"] == "cancelled"
        assert (await face.call("step", episode=kept, turn=0, action=CALL))[0] == 200
        assert FakeFactory.made[0].closed and not FakeFactory.made[1].closed


async def test_deleting_in_the_middle_of_a_step_ends_it_at_once(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        episode = await opened(face)
        playing = asyncio.create_task(face.call("step", episode=episode, turn=0, action=slow(9)))
        await asyncio.sleep(0.1)
        status, state = await face.call("delete", episode=episode)
        assert (status, state["stop"]) == (200, "cancelled")
        assert (await playing)[0] in (410, 503)


async def test_an_answer_that_could_not_be_logged_is_not_given_and_not_lost(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        episode = await opened(face)
        served.log.full = True
        for _ in range(2):
            status, body = await face.call("step", episode=episode, turn=0, action=CALL)
            assert (status, body["error"]["code"]) == (503, "infra_fault") and "full" in body["error"]["message"]
        status, body = await face.call("create", request_id="s", suite="fakes", task="t0")
        assert status == 503 and FakeFactory.made[1].closed
        served.log.full = False
        assert (await face.call("step", episode=episode, turn=0, action=CALL))[0] == 200
        assert FakeFactory.made[0].calls == 1
        assert (await face.call("step", episode=episode, turn=1, action=winning()))[1]["reward"] == 1.0


async def test_a_bug_in_one_episode_ends_no_other(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        broken, fine = await opened(face), await opened(face, request_id="s")
        bug = {"calls": [{"tool": "python", "arguments": {"code": "slow as treacle"}}]}
        status, body = await face.call("step", episode=broken, turn=0, action=bug)
        assert (status, body["error"]["code"]) == (500, "internal")
        assert (await face.call("step", episode=fine, turn=0, action=CALL))[0] == 200
        await until(lambda: len(served.dispatcher.table) == 1)
        assert (await face.call("step", episode=broken, turn=0, action=CALL))[0] == 410


async def test_a_body_that_is_too_large_is_refused(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        episode = await opened(face)
        status, body = await face.raw("step", " " * (MAX_BODY + 1), episode=episode)
        assert (status, body["error"]["code"]) == (413, "body_too_large")
        assert (await face.call("step", episode=episode, turn=0, action=CALL))[0] == 200


async def test_a_frame_that_is_too_large_closes_its_connection_alone(served: RunningHub) -> None:
    async with Routes(served.url) as face, WebSocket(served.url) as socket:
        episode = await opened(face)
        await socket._socket.send_str(" " * (MAX_BODY + 1))
        assert (await socket._socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        assert socket._socket.close_code == 1009
        assert (await face.call("step", episode=episode, turn=0, action=CALL))[0] == 200


async def test_what_is_not_served_is_said_as_json(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        status, body = await face._send("GET", f"{served.url}/v1/nothing")
        assert (status, body["error"]["code"]) == (404, "no_route")
        status, body = await face._send("PATCH", f"{served.url}/v1/suites")
        assert (status, body["error"]["code"]) == (405, "method_not_allowed")
        assert body["error"]["detail"]["allowed"] == ["GET"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/episodes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{",
        b"GET /v1/sui",
        b"\x00\x01\x02\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
    ids=["half a body", "half a line", "garbage", "long header"],
)
async def test_half_a_request_disturbs_nobody(served: RunningHub, request_bytes: bytes) -> None:
    async with Routes(served.url) as face:
        episode = await opened(face)
        host, port = served.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(request_bytes)
        await writer.drain()
        assert (await face.call("step", episode=episode, turn=0, action=CALL))[0] == 200
        writer.close()
        assert (await face.call("step", episode=episode, turn=1, action=winning()))[0] == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
frames = st.one_of(
    json_values.map(json.dumps),
    st.text(max_size=60),
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 9) | st.text(max_size=3) | json_values,
            "op": st.sampled_from(["step", "create", "steps"]),
        },
        optional={"episode": json_values, "turn": json_values, "action": json_values, "steps": json_values},
    ).map(json.dumps),
)


def _requests(frame: str) -> int:
    """How many answers a frame gets: one, but for a list that is JSON (NaN is not), which is as many as its members."""
    try:
        values = parse_json(frame)
    except WireError:
        return 1
    return max(1, len(values)) if isinstance(values, list) else 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(frames, min_size=1, max_size=8))
def test_garbage_frames_are_answered_one_by_one(tmp_path_factory: pytest.TempPathFactory, sent: list[str]) -> None:
    async def play() -> None:
        async with hub(tmp_path_factory.mktemp("hub")) as served, WebSocket(served.url) as face:
            wanted = 0
            for frame in sent:
                await face._socket.send_str(frame)
                wanted += _requests(frame)
            while wanted > 0:
                answer = await face._socket.receive_json(timeout=10)
                for row in answer if isinstance(answer, list) else [answer]:
                    wanted -= 1
                    assert 400 <= row["status"] < 500 and set(row["error"]) == {"code", "message", "detail"}
            assert wanted == 0
            await face._socket.send_bytes(b"\xff\x00")
            assert (await face._socket.receive_json(timeout=10))["status"] == 400
            assert (await face.call("suites"))[0] == 200

    asyncio.run(play())


async def test_metrics_count_what_happened(served: RunningHub) -> None:
    async with Routes(served.url) as face:
        episode = await opened(face)
        await face.call("step", episode=episode, turn=0, action=CALL)
        await face.call("step", episode=episode, turn=0, action=winning())
        await face.call("step", episode=episode, turn=1, action=winning())
        async with face._session.get(f"{served.url}/metrics") as response:
            text = await response.text()
    assert 'agenthub_episodes_total{outcome="ok",stop="answered"} 1' in text
    assert "agenthub_steps_total 2" in text and "agenthub_episodes_live 0" in text
    assert 'agenthub_errors_total{code="turn_conflict"} 1' in text
