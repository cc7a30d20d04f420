"""The `mcp` package's own client against a hub: `mcp_client.py SCENARIO URL`; prints what it saw."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from mcp import Client
from mcp.shared.exceptions import MCPError


def show(value: Any) -> None:
    print(json.dumps(value), flush=True)


async def refused(client: Any, name: str, arguments: dict[str, Any]) -> None:
    try:
        await client.call_tool(name, arguments)
    except MCPError as error:
        show({"code": error.error.code, "message": error.error.message, "data": error.error.data})
    else:
        raise AssertionError("it was not refused")


async def play(url: str) -> None:
    async with Client(f"{url}?task=t0") as client:
        show({"instructions": client.instructions, "version": client.protocol_version})
        show([{"name": tool.name, "schema": tool.input_schema} for tool in (await client.list_tools()).tools])
        for name, arguments in (
            ("python", {"code": "hello"}),
            ("python", {"code": "fail"}),
            ("submit_answer", {"answer": "42"}),
        ):
            done = await client.call_tool(name, arguments)
            show({"text": done.content[0].text, "failed": done.is_error, "facts": done.structured_content})
        await refused(client, "python", {"code": "hello"})


async def faults(url: str) -> None:
    async with Client(f"{url}?task=t0") as client:
        await refused(client, "pyton", {})
        await refused(client, "submit_answer", {"anser": "42"})
        await refused(client, "python", {"code": "host"})


async def leave(url: str) -> None:
    """Two sessions: one is closed in order, one is left."""
    async with Client(f"{url}?task=t0") as client:
        await client.call_tool("python", {"code": "hello"})
        show({"open": 1})
    left = Client(f"{url}?task=t0&lease_s=1")
    await left.__aenter__()
    show({"open": 2})
    os._exit(0)


if __name__ == "__main__":
    asyncio.run({"play": play, "faults": faults, "leave": leave}[sys.argv[1]](sys.argv[2]))
