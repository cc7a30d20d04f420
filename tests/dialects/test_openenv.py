"""OpenEnv's own clients play ordinary episodes; what they are told is what the hub's log says."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.peers import said_by, start
from tests.server.harness import RunningHub, hub, until

ECHO = {"calls": [{"arguments": {"code": "hello"}}]}


async def trajectory(served: RunningHub, episode: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{served.url}/v1/episodes/{episode}/trajectory") as response:
        assert response.status == 200, await response.text()
        return dict((await response.json())["trajectory"])


async def test_the_real_client_plays_an_ordinary_episode(tmp_path: Path, openenv: str) -> None:
    async with hub(tmp_path) as served:
        first, echoed, state, last, refused, drawn = await said_by("openenv", "play", f"{served.url}/openenv/fakes")
        record = await trajectory(served, first["metadata"]["episode"])
        await until(lambda: len(served.dispatcher.table) == 0)
    assert first["reward"] is None and not first["done"]
    assert first["observation"]["messages"] == [{"role": "user", "content": "?"}]
    assert echoed["observation"]["text"] == "```output\nhello#1\n```"
    assert (state["episode_id"], state["step_count"], state["task"]) == ("mine", 1, "fakes/t0")
    assert last["done"] and last["metadata"]["terminated"] and last["metadata"]["outcome"] == "ok"
    assert "reset first" in refused["error"]
    assert drawn["metadata"]["task"].startswith("t") or drawn["metadata"]["task"] in ("held", "long", "broken")
    # The rewards are those of each step alone: they add up to the episode's.
    assert [sum(turn["rewards"].values()) for turn in record["turns"]] == [echoed["reward"], last["reward"]]
    assert record["reward"] == echoed["reward"] + last["reward"] == 1.0
    assert record["turns"][0]["calls"][0]["arguments"] == {"code": "hello"}


async def test_a_fault_is_an_error_and_never_a_reward(tmp_path: Path, openenv: str) -> None:
    async with hub(tmp_path) as served:
        broken, misspelt, no_action, lost, again = await said_by("openenv", "faults", f"{served.url}/openenv/fakes")
        await until(lambda: len(served.dispatcher.table) == 0)
    assert "no box could be started" in broken["error"]
    assert "did you mean 'seed'?" in misspelt["error"] and "VALIDATION_ERROR" in misspelt["error"]
    assert "did you mean 'calls'?" in no_action["error"]
    assert "infra_fault" in lost["error"] and "the supervisor is gone" in lost["error"]
    assert again["metadata"]["task"] == "t1"


async def test_the_tool_client_lists_calls_and_answers(tmp_path: Path, openenv: str) -> None:
    async with hub(tmp_path) as served:
        opened, names, shown, unknown, done = await said_by("openenv", "tools", f"{served.url}/openenv/fakes")
        record = await trajectory(served, opened["episode"])
    assert names == ["python", "submit_answer"]
    assert shown == ["hello#1"]
    assert "did you mean 'python'?" in unknown["error"]
    assert done == {"reward": 1.0, "done": True}
    assert [turn["answer"] for turn in record["turns"]] == [None, "42"], "an unknown tool is no turn"


async def test_the_blocking_client_plays_too(tmp_path: Path, openenv: str) -> None:
    async with hub(tmp_path) as served:
        (done,) = await said_by("openenv", "blocking", f"{served.url}/openenv/fakes")
    assert done["reward"] == 1.0 and done["done"]


async def test_a_full_hub_says_so(tmp_path: Path, openenv: str) -> None:
    async with hub(tmp_path, max_episodes=1) as served:
        refused, opened = await said_by("openenv", "capacity", f"{served.url}/openenv/fakes")
    assert "CAPACITY_REACHED" in refused["error"]
    assert opened["reward"] is None


async def test_the_episode_of_a_client_that_vanishes_ends(tmp_path: Path, openenv: str) -> None:
    async with hub(tmp_path) as served:
        process = await start("openenv", "vanish", f"{served.url}/openenv/fakes")
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline()) == {"open": True}
        assert len(served.dispatcher.table) == 1
        await process.communicate()
        await until(lambda: len(served.dispatcher.table) == 0)


async def call(http: aiohttp.ClientSession, url: str, **body: Any) -> tuple[int, dict[str, Any]]:
    async with http.post(url, json=body) as response:
        return response.status, await response.json()


async def test_the_routes_hold_an_episode_by_its_name(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as http:
        base = f"{served.url}/openenv/fakes"
        status, opened = await call(http, f"{base}/reset", task="t0", episode_id="a")
        assert (status, opened["metadata"]["episode_id"], opened["done"]) == (200, "a", False)
        assert opened.keys() == {"observation", "reward", "done", "metadata"}
        _, echoed = await call(http, f"{base}/step", episode_id="a", action=ECHO)
        assert echoed["observation"]["text"] == "```output\nhello#1\n```"
        async with http.get(f"{base}/state", params={"episode_id": "a"}) as response:
            state = await response.json()
        assert (state["episode_id"], state["step_count"]) == ("a", 1)
        _, last = await call(http, f"{base}/step", episode_id="a", action={"answer": "42"})
        assert last["reward"] == 1.0 and last["done"]
        assert (await call(http, f"{base}/step", episode_id="b", action=ECHO))[0] == 404
        status, refused = await call(http, f"{base}/step", action=ECHO)
        assert status == 422 and refused["detail"][0]["loc"] == ["body", "episode_id"]
        name = (await call(http, f"{base}/reset", task="t2"))[1]["metadata"]["episode_id"]
        assert re.fullmatch("ep-[0-9a-f]{24}", name)
        # The same name again is another episode in the place of the first.
        await call(http, f"{base}/reset", task="t1", episode_id=name)
        assert len(served.dispatcher.table) == 1
        _, faulty = await call(http, f"{base}/step", episode_id=name, action=_code("host"))
        assert faulty["code"] == "infra_fault" and "reward" not in faulty


async def test_the_routes_about_a_suite(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as http:
        base = f"{served.url}/openenv/fakes"
        told = {}
        for name in ("health", "metadata", "schema", "state", "list_environments", "fakes/splits"):
            async with http.get(f"{base}/{name}") as response:
                assert response.status == 200
                told[name] = await response.json()
        assert told["health"] == {"status": "healthy"}
        assert told["metadata"]["name"] == "fakes"
        assert set(told["schema"]) == {"action", "observation", "state", "reset_observation"}
        assert told["state"] == {"episode_id": None, "step_count": 0}
        assert told["list_environments"] == ["fakes"]
        assert {row["name"]: row["type"] for row in told["fakes/splits"]} == {"train": "train", "test": "test"}
        assert (await call(http, f"{base}/fakes/num_tasks", split="test"))[1] == {"num_tasks": 1}
        _, held = await call(http, f"{base}/fakes/task", split="test", index=0)
        assert held["task"]["id"] == "held" and "target" not in held["task"]
        assert (await call(http, f"{base}/fakes/task", split="test", index=1))[0] == 400
        _, few = await call(http, f"{base}/fakes/task_range", split="train", start=1, stop=3)
        assert [row["id"] for row in few["tasks"]] == ["t1", "t2"]
        assert (await call(http, f"{base}/other/tasks", split="train"))[0] == 404
        async with http.get(f"{served.url}/openenv/nothing/health") as response:
            assert response.status == 404


async def test_an_mcp_session_that_names_no_task_opens_its_episode_when_it_needs_one(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as http:
        url = f"{served.url}/openenv/forks/mcp"

        async def ask(method: str, **params: Any) -> dict[str, Any]:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return dict((await call(http, url, **body))[1]["result"])

        session = (await ask("openenv/session/create"))["session_id"]
        assert len(served.dispatcher.table) == 0
        assert "submit_answer" in [tool["name"] for tool in (await ask("tools/list", session_id=session))["tools"]]
        assert len(served.dispatcher.table) == 1
        assert (await ask("openenv/session/close", session_id=session))["closed"] is True
        await until(lambda: len(served.dispatcher.table) == 0)


async def test_an_mcp_session_of_openenv_is_closed_once(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as http:
        url = f"{served.url}/openenv/fakes/mcp"

        async def ask(method: str, **params: Any) -> dict[str, Any]:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return (await call(http, url, **body))[1]

        session = (await ask("openenv/session/create", task="t0"))["result"]["session_id"]
        called = await ask("tools/call", session_id=session, name="python", arguments={"code": "hello"})
        assert called["result"]["structuredContent"]["reward"] == 0.0
        assert (await ask("openenv/session/close", session_id=session))["result"]["closed"] is True
        assert (await ask("openenv/session/close", session_id=session))["error"]["code"] == -32602
        assert (await ask("tools/list"))["error"]["code"] == -32602
        assert (await ask("tools/lost", session_id=session))["error"]["code"] == -32601
        assert (await call(http, url, method="ping"))[1]["error"]["code"] == -32600
        await until(lambda: len(served.dispatcher.table) == 0)


def _code(code: str) -> dict[str, Any]:
    return {"calls": [{"arguments": {"code": code}}]}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("seed", "task", "text", "answer", "calls", "type", "tool_name", "method", "jsonrpc", "id", "params", "data")
DATA = st.dictionaries(st.sampled_from(FIELDS), VALUES | st.sampled_from(["t0", "call_tool", "2.0", 7]), max_size=4)
KINDS = st.sampled_from(["reset", "step", "state", "mcp", "mcp ", ""])
FRAMES = st.lists(
    st.one_of(
        st.builds(lambda kind, data: json.dumps({"type": kind, "data": data}), KINDS, DATA),
        VALUES.map(json.dumps),
        st.text(max_size=30),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25)
@given(frames=FRAMES)
def test_every_message_is_answered_in_order_and_none_is_a_bug(
    frames: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def play() -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("hub")
        async with (
            hub(folder) as served,
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{served.url}/openenv/fakes/ws") as ws,
        ):
            for frame in frames:
                await ws.send_str(frame)
            return [json.loads((await ws.receive(30)).data) for _ in frames]

    for answer in asyncio.run(play()):
        assert answer["type"] in ("observation", "state", "mcp", "error")
        assert answer["data"].get("error") != "internal", answer
