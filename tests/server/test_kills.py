"""kill -9 of the process that serves, in the middle of everything: nobody who asks again notices."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agenthub.client import Hub
from agenthub.client.episode import EpisodeHandle
from tests.sandboxes.boxes import need_jail
from tests.sandboxes.test_lifetime import alive, descendants, until
from tests.server.kills import ECHO, STATE, Phoenix, phoenix, played


async def opened(hub: Hub, suite: str, task: str, count: int) -> list[EpisodeHandle]:
    handles: list[EpisodeHandle] = []
    while len(handles) < count:
        handles += await hub.create(suite, task, count=min(16, count - len(handles)))
    return handles


async def hashes(episodes: Sequence[tuple[EpisodeHandle, Sequence[str]]]) -> list[str]:
    done = await asyncio.gather(*(played(episode, texts) for episode, texts in episodes))
    return [it.info["hash"] for it in done]


async def killed_again_and_again(served: Phoenix, hub: Hub, *, kills: int, state: int, echo: int) -> None:
    """Every one of `state` + `echo` episodes ends with the hash of an undisturbed run, though the hub is killed."""
    calm = [(it, STATE) for it in await opened(hub, "kills", "state", 1)]
    calm += [(it, ECHO) for it in await opened(hub, "echo", "parrot", 1)]
    of_state, of_echo = await hashes(calm)
    running = [(it, STATE) for it in await opened(hub, "kills", "state", state)]
    running += [(it, ECHO) for it in await opened(hub, "echo", "parrot", echo)]
    # A third of the state ones waits between two turns through the first half of the kills: their boxes are clean.
    waiting = running[: state // 3]
    await asyncio.gather(*(episode.step(texts[0]) for episode, texts in waiting))
    playing = asyncio.gather(*(played(episode, texts) for episode, texts in running[state // 3 :]))
    steps = sum(len(texts) for _, texts in running[state // 3 :])
    late: asyncio.Future[list[str]] | None = None
    for kill in range(kills):
        enough = steps * (kill + 1) // (kills + 1)
        while sum(it.next_turn for it, _ in running[state // 3 :]) < enough and not playing.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        if kill >= kills // 2 and late is None:
            late = asyncio.ensure_future(hashes(waiting))
        await served.count(hub)
        await asyncio.to_thread(served.kill)
        await asyncio.to_thread(served.start)
    done = [it.info["hash"] for it in await playing]
    late = late or asyncio.ensure_future(hashes(waiting))
    assert await late == [of_state] * len(waiting)
    assert done == [of_state] * (state - len(waiting)) + [of_echo] * echo
    await served.count(hub)


async def test_episodes_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    need_jail()
    with phoenix(tmp_path) as served:
        async with Hub(served.url, retry_s=120) as hub:
            await killed_again_and_again(served, hub, kills=3, state=20, echo=20)
            below = descendants(served.pid)
    assert served.recovered["attached"] > 0 and served.recovered["replayed"] > 0, served.recovered
    assert served.recovered["lost"] == 0, served.errors
    assert until(lambda: not alive(below), 10)


async def test_a_hub_that_cannot_start_leaves_what_is_there_to_the_next(tmp_path: Path) -> None:
    need_jail()
    with phoenix(tmp_path) as served:
        async with Hub(served.url, retry_s=120) as hub:
            (episode,) = await opened(hub, "kills", "state", 1)
            await episode.step(STATE[0])
            served.kill()
            with socket.create_server(("127.0.0.1", served.port)):
                assert "cannot listen" in await asyncio.to_thread(served.fails)
            await asyncio.to_thread(served.start)
            assert (await played(episode, STATE)).reward == 1.0
            await served.count(hub)
            assert served.recovered == {"attached": 1}


@pytest.mark.slow
async def test_twenty_kills_of_five_hundred_episodes(tmp_path: Path) -> None:
    need_jail()
    began = time.monotonic()
    with phoenix(tmp_path) as served:
        async with Hub(served.url, retry_s=300) as hub:
            await killed_again_and_again(served, hub, kills=20, state=250, echo=250)
    print(f"{time.monotonic() - began:.0f} s, {dict(served.recovered)}")
    assert served.recovered["attached"] > 0 and served.recovered["replayed"] > 0, served.recovered
    assert served.recovered["lost"] == 0, served.errors
