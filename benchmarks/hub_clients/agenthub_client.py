"""Sessions of this project's own client on one hub: `agenthub_client.py URL MODE SESSIONS SECONDS`.

Opens its episodes, prints `ready`, waits for a line, steps for some seconds and prints one JSON object: steps, wall
seconds, and the microseconds of each step. MODE: `socket` is the client's default, one WebSocket for all; `post` is one
request a step; `batch` posts the steps of all sessions at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp

from agenthub.client import BatchStep, EpisodeHandle, Hub
from agenthub.wire import Action

TEXT = "```\n" + "parrot " * 16 + "\n```"
AT_ONCE = 1024


async def socket(episodes: list[EpisodeHandle], seconds: float) -> list[float]:
    """Each session steps when it has its answer; seconds of each step."""
    ends, took = time.perf_counter() + seconds, []

    async def play(episode: EpisodeHandle) -> None:
        while (began := time.perf_counter()) < ends:
            await episode.step(TEXT)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(play(episode) for episode in episodes))
    return took


async def post(url: str, episodes: list[EpisodeHandle], seconds: float) -> list[float]:
    """The same with a POST for each step, over connections that are kept."""
    took: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        ends = time.perf_counter() + seconds

        async def play(id: str) -> None:
            turn = 0
            while (began := time.perf_counter()) < ends:
                body = json.dumps({"turn": turn, "action": {"text": TEXT}})
                async with http.post(f"{url}/v1/episodes/{id}/step", data=body) as response:
                    turn = json.loads(await response.read())["turn"] + 1
                took.append(time.perf_counter() - began)

        await asyncio.gather(*(play(episode.id) for episode in episodes))
    return took


async def batch(hub: Hub, episodes: list[EpisodeHandle], seconds: float) -> list[float]:
    """All sessions in one request at a time."""
    ends, took = time.perf_counter() + seconds, []
    action = Action(text=TEXT, calls=None)
    while (began := time.perf_counter()) < ends:
        await hub.steps([BatchStep(episode=episode, action=action) for episode in episodes])
        took += [time.perf_counter() - began] * len(episodes)
    return took


async def main(url: str, mode: str, sessions: int, seconds: float) -> None:
    """Run one mode."""
    async with Hub(url) as hub:
        episodes: list[EpisodeHandle] = []
        while len(episodes) < sessions:
            episodes += await hub.create("echo", "parrot", count=min(AT_ONCE, sessions - len(episodes)), lease_s=600)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.perf_counter()
        if mode == "socket":
            took = await socket(episodes, seconds)
        elif mode == "post":
            took = await post(url, episodes, seconds)
        else:
            took = await batch(hub, episodes, seconds)
        wall = time.perf_counter() - began
        print(json.dumps({"steps": len(took), "wall_s": wall, "us": [round(1e6 * it) for it in took]}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(episode.close() for episode in episodes))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
