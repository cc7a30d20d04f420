"""A tenant's sessions are no other's, and what it does here counts towards its own quotas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from tests.dialects.test_mcp import INITIALIZE, PING
from tests.server.tenants import TOKENS, tenants


def token(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[name]}"}


async def post(http: aiohttp.ClientSession, url: str, who: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with http.post(url, json=body, headers={**token(who), **headers}) as response:
        return response.status, await response.json()


async def test_a_session_of_another_tenant_is_as_unknown_as_none(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as http:
        openenv, mcp = f"{served.url}/openenv/fakes", f"{served.url}/mcp/fakes"
        await post(http, f"{openenv}/reset", "alice", {"task": "t0", "episode_id": "a"})
        step = {"episode_id": "a", "action": {"answer": "42"}}
        assert (await post(http, f"{openenv}/step", "bob", step))[0] == 404
        async with http.get(f"{openenv}/state", params={"episode_id": "a"}, headers=token("bob")) as response:
            assert response.status == 404
        # The same name is bob's own from here on, and alice's is as it was.
        await post(http, f"{openenv}/reset", "bob", {"task": "t1", "episode_id": "a"})
        assert (await post(http, f"{openenv}/step", "alice", step))[1]["metadata"]["episode_id"] == "a"
        create = {"jsonrpc": "2.0", "id": 1, "method": "openenv/session/create", "params": {"task": "t0"}}
        session = (await post(http, f"{openenv}/mcp", "alice", create))[1]["result"]["session_id"]
        close = {**create, "method": "openenv/session/close", "params": {"session_id": session}}
        assert (await post(http, f"{openenv}/mcp", "bob", close))[1]["error"]["code"] == -32602
        async with http.ws_connect(f"{openenv}/ws?session_id={session}", headers=token("bob")) as socket:
            assert "unknown session_id" in (await socket.receive_json())["data"]["message"]
        async with http.post(f"{mcp}?task=t0", json=INITIALIZE, headers=token("alice")) as response:
            mine = {"Mcp-Session-Id": response.headers["Mcp-Session-Id"]}
        assert (await post(http, mcp, "bob", PING, **mine))[0] == 404
        assert (await post(http, mcp, "alice", PING, **mine))[0] == 200


async def test_quotas_hold_here_too(tmp_path: Path) -> None:
    quotas = {"live_episodes": 1, "steps_per_s": 1.0}
    async with tenants(tmp_path, quotas) as served, aiohttp.ClientSession() as http:
        openenv, mcp = f"{served.url}/openenv/fakes", f"{served.url}/mcp/fakes"
        await post(http, f"{openenv}/reset", "alice", {"task": "t0", "episode_id": "a"})
        status, refused = await post(http, f"{openenv}/reset", "alice", {"task": "t0", "episode_id": "b"})
        assert status == 429 and refused["code"] == "quota_exceeded"
        assert (await post(http, mcp, "alice", INITIALIZE))[1]["error"]["code"] == -32000
        async with http.ws_connect(f"{openenv}/ws", headers=token("alice")) as socket:
            await socket.send_json({"type": "reset", "data": {"task": "t0"}})
            assert (await socket.receive_json())["data"]["code"] == "CAPACITY_REACHED"
        run = f"{served.url}/sandboxfusion/run_code"
        program = {"code": "print(1)", "language": "python"}
        assert (await post(http, run, "alice", program))[0] == 429
        step = {"episode_id": "a", "action": {"calls": [{"arguments": {"code": "hello"}}]}}
        assert 429 in [(await post(http, f"{openenv}/step", "alice", step))[0] for _ in range(20)]
