"""OpenEnv's own clients against a hub: `openenv_client.py SCENARIO BASE_URL`; prints what they saw."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from openenv.core.env_server.mcp_types import CallToolAction
from openenv.core.generic_client import GenericEnvClient
from openenv.core.mcp_client import MCPToolClient

ECHO = {"calls": [{"arguments": {"code": "hello"}}]}


def show(value: Any) -> None:
    print(json.dumps(value), flush=True)


def result(step: Any) -> dict[str, Any]:
    return {name: getattr(step, name) for name in ("observation", "reward", "done", "metadata")}


async def refused(work: Awaitable[Any]) -> None:
    try:
        await work
    except RuntimeError as error:
        show({"error": str(error)})
    else:
        raise AssertionError("it was not refused")


async def play(url: str) -> None:
    async with GenericEnvClient(base_url=url) as env:
        show(result(await env.reset(task="t0", episode_id="mine")))
        show(result(await env.step(ECHO)))
        show(await env.state())
        show(result(await env.step({"text": "\\boxed{42}"})))
        await refused(env.step(ECHO))
        show(result(await env.reset(seed=1)))


async def faults(url: str) -> None:
    async with GenericEnvClient(base_url=url) as env:
        await refused(env.reset(task="broken"))
        await refused(env.reset(sed=1))
        await env.reset(task="t0")
        await refused(env.step({"colls": []}))
        await refused(env.step({"calls": [{"arguments": {"code": "host"}}]}))
        show(result(await env.reset(task="t1")))


async def tools(url: str) -> None:
    async with MCPToolClient(base_url=url) as env:
        first = await env.reset(task="t0")
        show({"episode": first.metadata["episode"]})
        show([tool.name for tool in await env.list_tools()])
        show([await env.call_tool("python", code="hello")])
        try:
            await env.call_tool("pyton")
        except RuntimeError as error:
            show({"error": str(error)})
        done = await env.step(CallToolAction(tool_name="submit_answer", arguments={"answer": "42"}))
        show({"reward": done.reward, "done": done.done})


async def capacity(url: str) -> None:
    async with GenericEnvClient(base_url=url) as one, GenericEnvClient(base_url=url) as two:
        await one.reset(task="t0")
        await refused(two.reset(task="t0"))
        await one.step({"answer": "42"})
        show(result(await two.reset(task="t0")))


async def vanish(url: str) -> None:
    """End without a word in the middle of a slow turn."""
    env = GenericEnvClient(base_url=url)
    await env.connect()
    await env.reset(task="t0")
    show({"open": True})
    turn = asyncio.ensure_future(asyncio.wait_for(env.step({"calls": [{"arguments": {"code": "slow 9"}}]}), 60))
    await asyncio.wait([turn], timeout=float(os.environ.get("LINGER_S", "0.5")))
    os._exit(0)


def blocking(url: str) -> None:
    with GenericEnvClient(base_url=url).sync() as env:
        env.reset(task="t0")
        done = env.step({"answer": "42"})
        show(asdict(done) if hasattr(done, "__dataclass_fields__") else result(done))


SCENARIOS: dict[str, Callable[[str], Awaitable[None]]] = {
    "play": play,
    "faults": faults,
    "tools": tools,
    "capacity": capacity,
    "vanish": vanish,
}

if __name__ == "__main__":
    if sys.argv[1] == "blocking":
        blocking(sys.argv[2])
    else:
        asyncio.run(SCENARIOS[sys.argv[1]](sys.argv[2]))  # type: ignore[arg-type]
