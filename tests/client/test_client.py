"""The client against a real hub: episodes, retries, leases, batches, the blocking face."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agenthub.client import BatchStep, BlockingHub, Hub, retry
from agenthub.codec import trajectory_hash
from agenthub.errors import HostFault, HubUnreachable, UserError, WireError
from agenthub.records import Outcome, Stop
from agenthub.wire import Action, CallIn, StepDone
from tests.server.harness import hub


def call(code: str) -> Action:
    return Action(text=None, calls=[CallIn(tool="python", arguments={"code": code}, id=None)])


def answer(text: str) -> Action:
    return Action(text=None, calls=None, answer=text)


async def test_an_episode_is_played_and_its_record_read_back(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        (episode,) = await client.create("fakes", "t0", group="g")
        assert episode.observation["messages"][0]["content"] == "?"
        assert episode.info["limits"]["max_turns"] == 4
        first = await episode.step(call("a"))
        assert first.observation["observations"][0]["parts"][0]["text"] == "a#1"
        last = await episode.step(answer("42"))
        assert (last.reward, last.terminated, episode.done) == (1.0, True, True)
        record = await episode.trajectory()
        assert (record.stop, record.outcome, record.group) == (Stop.ANSWERED, Outcome.OK, "g")
        assert last.info["hash"] == trajectory_hash(record)
        assert (await episode.state()).reward == 1.0


async def test_many_episodes_share_one_connection(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        handles = await client.create("fakes", "t1", count=20)
        done = await asyncio.gather(*(handle.step(call(str(i))) for i, handle in enumerate(handles)))
        assert [row.observation["observations"][0]["parts"][0]["text"] for row in done] == [f"{i}#1" for i in range(20)]
        assert [handle.member for handle in handles] == list(range(20))
        await asyncio.gather(*(handle.close() for handle in handles))
        assert len(served.dispatcher.table) == 0


async def test_a_batch_answers_in_order_and_an_error_stays_with_its_step(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        one, two, three = await client.create("fakes", "t1", count=3)
        await two.step(answer("42"))
        results = await client.steps([BatchStep(episode=it, action=call("x")) for it in (one, two, three)])
        assert isinstance(results[0], StepDone) and isinstance(results[2], StepDone)
        assert isinstance(results[1], WireError) and results[1].status in (409, 410)
        assert (one.next_turn, three.next_turn) == (1, 1)


async def test_faults_of_the_hub_and_refusals_are_different_errors(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        with pytest.raises(HostFault, match="no box"):
            await client.create("fakes", "broken", count=4)
        with pytest.raises(WireError, match="did you mean 'fakes'"):
            await client.create("fake", "t0")
        with pytest.raises(UserError, match="finite"):
            (episode,) = await client.create("fakes", "t0")
            bad = CallIn(tool="python", arguments={"code": float("nan")}, id=None)
            await episode.step(Action(text=None, calls=[bad]))


async def test_no_hub_is_said_after_the_budget() -> None:
    async with Hub("http://127.0.0.1:9", retry_s=0.3) as client:
        with pytest.raises(HubUnreachable, match=r"0\.3 s"):
            await client.suites()


async def test_a_person_is_told_once_that_a_hub_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "_QUIET_S", 0.1)
    monkeypatch.setattr(retry, "_told", {})
    async with Hub("http://127.0.0.1:9", retry_s=0.5) as client:
        asked = [client.suites() for _ in range(8)]
        assert all(isinstance(it, HubUnreachable) for it in await asyncio.gather(*asked, return_exceptions=True))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "agenthub.client"]
    assert "waiting up to 0.5 s for the hub at http://127.0.0.1:9" in line


def test_the_blocking_face_plays_an_episode(tmp_path: Path) -> None:
    loop_is_up = asyncio.new_event_loop()
    thread = threading.Thread(target=loop_is_up.run_forever)
    thread.start()
    context = hub(tmp_path)
    served = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop_is_up).result()
    try:
        with BlockingHub(served.url) as client:
            assert client.suites()[0]["splits"] == {"train": 5, "test": 1}
            (episode,) = client.create("fakes", seed=3, split="test")
            assert episode.info["task"] == "held"
            (copy,) = episode.fork(1)
            assert (copy.step(answer("42")).reward, copy.done) == (1.0, True)
            assert episode.step(answer("41")).reward == 0.0
            assert episode.trajectory().reward == 0.0
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop_is_up).result()
        loop_is_up.call_soon_threadsafe(loop_is_up.stop)
        thread.join()
        loop_is_up.close()


async def test_a_frame_that_is_too_large_fails_alone(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        big, small = await client.create("fakes", "t1", count=2)
        slow = asyncio.create_task(small.step(call("slow 0.3")))
        await asyncio.sleep(0.05)
        with pytest.raises(WireError, match="larger"):
            await big.step(call("x" * (2 << 20)))
        assert (await slow).turn == 0
        assert (await big.step(call("x"))).turn == 0


async def test_leases_are_renewed_while_the_client_waits(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        (episode,) = await client.create("fakes", "t1", lease_s=0.4)
        await asyncio.sleep(1.5)
        assert (await episode.step(call("x"))).turn == 0
        assert len(served.dispatcher.table) == 1


async def test_a_closed_client_says_so(tmp_path: Path) -> None:
    async with hub(tmp_path) as served:
        client = Hub(served.url)
        (episode,) = await client.create("fakes", "t1")
        waiting = asyncio.create_task(episode.step(call("slow 1")))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(HubUnreachable, match="closed"):
            await waiting


async def test_files_and_blobs_travel_as_they_are(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        (episode,) = await client.create("fakes", "t1")
        await episode.write_file("a/b", b"\x00\xff")
        assert await episode.read_file("a/b") == b"\x00\xff"
        name = hashlib.sha256(b"blob").hexdigest()
        await client.put_blob(name, b"blob")
        assert await client.get_blob(name) == b"blob"
        assert [row["id"] for row in await client.tasks("fakes", "test")] == ["held"]


async def test_copies_of_an_episode_go_on_by_themselves(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        (parent,) = await client.create("forks", "live", lease_s=0.4)
        await parent.step(call("a"))
        first, second = await parent.fork(2)
        assert (first.next_turn, first.info["fork_turn"], first.lease_s) == (1, 1, 0.4)
        assert first.observation["observations"][0]["parts"][0]["text"] == "a#1"
        await asyncio.sleep(1.0)  # their leases are renewed too
        texts = [
            (await it.step(call("b"))).observation["observations"][0]["parts"][0]["text"] for it in (first, parent)
        ]
        assert texts == ["b#2", "b#2"]
        assert (await second.step(answer("42"))).reward == 1.0
        (early,) = await second.fork(1, turn=1)
        assert (early.next_turn, early.lease_s) == (1, 60)
        with pytest.raises(WireError, match="has ended"):
            await second.fork(1)
        assert (await second.trajectory()).parent == parent.id
        await asyncio.gather(*(it.close() for it in (parent, first, early)))


async def test_a_hub_without_room_is_asked_again(tmp_path: Path) -> None:
    async with hub(tmp_path, memory_mb=250) as served, Hub(served.url) as client:
        first, second = await client.create("forks", "heavy", count=2)
        waiting = asyncio.create_task(first.fork(1))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await second.close()
        assert len(await waiting) == 1
        with pytest.raises(WireError, match="in all"):
            await first.fork(3)


async def test_an_answer_to_no_request_in_particular_ends_the_wait_of_all() -> None:
    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            row = {"id": None, "status": 400, "error": {"code": "malformed_json", "message": "no JSON", "detail": None}}
            await socket.send_json(row)
        return socket

    app = web.Application()
    app.router.add_get("/v1/ws", answer)
    async with TestServer(app) as server, Hub(str(server.make_url("/")), retry_s=60) as client:
        for waiting in [asyncio.ensure_future(client.call("lease", {"episode": "ep-1"})) for _ in range(3)]:
            with pytest.raises(WireError, match="no JSON"):
                async with asyncio.timeout(30):
                    await waiting
