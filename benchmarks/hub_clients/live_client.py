"""Many live episodes and few steps: `live_client.py URL ECHO PYTHON STEPS_PER_S SECONDS`.

Opens the episodes, prints `ready`, waits for a line, then starts steps at their times whether or not earlier ones are
answered, half of them in Python. A step's time counts from when it was due. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time

from agenthub.client import EpisodeHandle, Hub
from agenthub.wire import Action, CallIn

AT_ONCE = 250
LEASE_S = 900
ECHO = Action(text="```\nparrot\n```", calls=None)
PYTHON = Action(text=None, calls=[CallIn(arguments={"code": "n = globals().get('n', 0) + 1; n"})])


async def opened(hub: Hub, suite: str, task: str, count: int) -> list[EpisodeHandle]:
    """`count` episodes in a random order."""
    episodes: list[EpisodeHandle] = []
    while len(episodes) < count:
        wanted = min(AT_ONCE, count - len(episodes))
        episodes += await hub.create(suite, task, count=wanted, lease_s=LEASE_S)
    random.Random(0).shuffle(episodes)
    return episodes


async def main(url: str, echoes: int, pythons: int, rate: float, seconds: float) -> None:
    """Run it."""
    async with Hub(url) as hub:
        said = await opened(hub, "echo", "parrot", echoes)
        print("opened", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        ran = await opened(hub, "live", "python", pythons)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        turns = zip(itertools.cycle(said), itertools.cycle(ran), strict=False)
        due = itertools.chain.from_iterable(((one, ECHO), (other, PYTHON)) for one, other in turns)
        us: dict[str, list[int]] = {"echo": [], "python": []}
        began = time.perf_counter()

        async def step(episode: EpisodeHandle, action: Action, at: float) -> None:
            await episode.step(action)
            us["echo" if action is ECHO else "python"].append(round(1e6 * (time.perf_counter() - at)))

        async with asyncio.TaskGroup() as group:
            for index, (episode, action) in enumerate(due):
                at = began + index / rate
                if at > began + seconds:
                    break
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                group.create_task(step(episode, action, at))
        print(json.dumps({"wall_s": time.perf_counter() - began, **us}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])))
