"""Sessions of OpenEnv's own client on its own server, measured as `agenthub_client` is; a WebSocket a session."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from openenv.core.generic_client import GenericEnvClient

TEXT = "parrot " * 16


async def main(url: str, sessions: int, seconds: float) -> None:
    """`openenv_client.py URL MODE SESSIONS SECONDS`; there is one mode."""
    clients = [GenericEnvClient(base_url=url) for _ in range(sessions)]
    for client in clients:
        await client.connect()
        await client.reset()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    ends, took = began + seconds, []

    async def play(client: GenericEnvClient) -> None:
        while (sent := time.perf_counter()) < ends:
            await client.step({"message": TEXT})
            took.append(time.perf_counter() - sent)

    await asyncio.gather(*(play(client) for client in clients))
    wall = time.perf_counter() - began
    print(json.dumps({"steps": len(took), "wall_s": wall, "us": [round(1e6 * it) for it in took]}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(client.close() for client in clients))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[3]), float(sys.argv[4])))
