"""The `mcp` package's client plays an episode as a session; what the protocol refuses is refused as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from tests.dialects.peers import said_by, start
from tests.dialects.test_openenv import trajectory
from tests.server.harness import hub, until

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


async def test_the_real_client_plays_an_ordinary_episode(tmp_path: Path, mcp: str) -> None:
    async with hub(tmp_path) as served:
        told, tools, hello, failed, answered, refused = await said_by("mcp", "play", f"{served.url}/mcp/fakes")
        record = await trajectory(served, answered["facts"]["episode_id"])
        assert len(served.dispatcher.table) == 0
    assert told == {"instructions": "?", "version": "2025-11-25"}
    assert [tool["name"] for tool in tools] == ["python", "submit_answer"]
    assert tools[0]["schema"] == {"type": "object"}, "the schema that the suite's sandbox declares"
    assert tools[1]["schema"]["required"] == ["answer"]
    assert (hello["text"], hello["failed"], hello["facts"]["done"]) == ("hello#1", False, False)
    assert (failed["text"], failed["failed"]) == ("fail#2", True)
    assert answered["facts"]["done"] and answered["facts"]["outcome"] == "ok"
    assert refused["data"]["code"] == "no_episode"
    seen = [row["facts"]["reward"] for row in (hello, failed, answered)]
    assert seen == [sum(turn["rewards"].values()) for turn in record["turns"]] == [0.0, 0.0, 1.0]


async def test_a_fault_is_an_error_and_never_a_reward(tmp_path: Path, mcp: str) -> None:
    async with hub(tmp_path) as served:
        unknown, misspelt, lost = await said_by("mcp", "faults", f"{served.url}/mcp/fakes")
        assert len(served.dispatcher.table) == 0
    assert unknown["code"] == -32602 and "did you mean 'python'?" in unknown["message"]
    assert misspelt["code"] == -32602
    assert lost["code"] == -32603 and lost["data"]["code"] == "infra_fault"


async def test_a_session_that_is_left_ends_with_its_lease(tmp_path: Path, mcp: str) -> None:
    async with hub(tmp_path) as served:
        process = await start("mcp", "leave", f"{served.url}/mcp/fakes")
        assert process.stdout is not None
        assert b'"open": 1' in await process.stdout.readline()
        assert b'"open": 2' in await process.stdout.readline()
        assert len(served.dispatcher.table) <= 1, "the first session was ended by its client"
        await process.communicate()
        await until(lambda: len(served.dispatcher.table) == 0)


async def test_what_the_protocol_refuses(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as http:
        url = f"{served.url}/mcp/fakes"

        async def post(body: Any, query: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
            async with http.post(url + query, json=body, headers=headers) as response:
                return response.status, await response.json() if response.status != 202 else {}

        async with http.post(f"{url}?task=t0", json=INITIALIZE) as response:
            session = response.headers["Mcp-Session-Id"]
            result = (await response.json())["result"]
        assert result["protocolVersion"] == "2025-06-18"
        assert result["_meta"]["agenthub/episode"]["task"] == "t0"
        mine = {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-06-18"}
        assert (await post({"jsonrpc": "2.0", "method": "notifications/initialized"}, **mine)) == (202, {})
        assert (await post(PING, **mine))[1] == {"jsonrpc": "2.0", "id": 2, "result": {}}
        assert (await post(PING))[0] == 400
        assert (await post(PING, **{"Mcp-Session-Id": "none"}))[0] == 404
        status, newer = await post(PING, **{**mine, "MCP-Protocol-Version": "1999-01-01"})
        assert status == 400 and "2025-11-25" in newer["error"]["message"]
        assert (await post([PING], **mine))[0] == 400
        assert (await post({**PING, "method": "resources/list"}, **mine))[1]["error"]["code"] == -32601
        assert (await post(INITIALIZE, "?sed=1"))[1]["error"]["code"] == -32602
        assert "number" in (await post(INITIALIZE, "?seed=x"))[1]["error"]["message"]
        async with http.get(url) as response:
            assert response.status == 405
        other = f"{served.url}/mcp/forks"
        async with http.post(other, json=PING, headers=mine) as response:
            assert response.status == 404, "a session is of one suite"
        async with http.delete(url, headers=mine) as response:
            assert response.status == 204
        assert len(served.dispatcher.table) == 0
        assert (await post(PING, **mine))[0] == 404
