"""Faults around a real hub with real boxes: its supervisor, a worker, its disk, its clients."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from agenthub.client import Hub
from agenthub.policy import Request
from agenthub.records import Outcome
from agenthub.rollout import Play
from tests.sandboxes.boxes import need_jail
from tests.sandboxes.test_lifetime import alive, descendants, until
from tests.server.kills import STATE, Phoenix, phoenix, played
from tests.test_rollout import TextPolicy, collector


@asynccontextmanager
async def serving(folder: Path, *options: str) -> AsyncIterator[tuple[Phoenix, Hub]]:
    need_jail()
    with phoenix(folder, *options) as served:
        async with Hub(served.url, retry_s=60) as hub:
            yield served, hub


async def holds(condition: Callable[[], bool]) -> bool:
    """Wait for something outside; the event loop goes on meanwhile."""
    return await asyncio.to_thread(until, condition, 20)


def cell(code: str) -> str:
    return f"```python\n{code}\n```"


def supervisor_of(hub: int) -> int:
    """The process of the hub's own that is its supervisor."""
    (found,) = [
        pid
        for pid in map(int, Path(f"/proc/{hub}/task/{hub}/children").read_text().split())
        if b"isolation.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def holding(below: set[int], name: str) -> set[int]:
    """Those of some processes that have a file of that name open."""
    found = set()
    for pid in alive(below):
        try:
            names = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(it.endswith(f"/{name}") for it in names):
            found.add(pid)
    return found


async def test_a_killed_supervisor_leaves_nothing_and_its_members_are_played_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (served, hub):
        killed: set[int] = set()

        def say(turn: int, request: Request) -> str:
            if turn == 2 and not killed:
                supervisor = supervisor_of(served.pid)
                killed.update({supervisor} | descendants(supervisor))
                os.kill(supervisor, signal.SIGKILL)
            return (cell("n = 1092"), cell("n += 1"), cell("import time; time.sleep(1)"), "\\boxed{1093}")[turn]

        player = collector(hub, TextPolicy(say))
        made = await player.collect([Play(suite="kills", task="state", count=4, group="g")], seed=1)
        assert [(one.member, one.outcome, one.reward) for one in made] == [(it, Outcome.OK, 1.0) for it in range(4)]
        assert player.stats.replayed >= 1 and killed
        assert await holds(lambda: not alive(killed)), f"left: {alive(killed)}"


async def test_a_lost_supervisor_is_an_infra_fault_and_no_reward(tmp_path: Path) -> None:
    async with serving(tmp_path) as (served, hub):
        (episode,) = await hub.create("kills", "state")
        turn = asyncio.create_task(episode.step(cell("import time\ntime.sleep(25)")))
        await asyncio.sleep(0.3)
        os.kill(supervisor_of(served.pid), signal.SIGKILL)
        done = await turn
        assert (done.info["outcome"], done.info["stop"], done.reward) == ("infra_fault", "sandbox_lost", None)
        assert (await played((await hub.create("kills", "state"))[0], STATE)).reward == 1.0


async def test_a_supervisor_and_a_hub_killed_together_are_replayed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (served, hub):
        (episode,) = await hub.create("kills", "state")
        for text in STATE[:3]:
            await episode.step(text)
        supervisor = supervisor_of(served.pid)
        below = {supervisor} | descendants(supervisor)
        served.kill()
        os.kill(supervisor, signal.SIGKILL)
        assert await holds(lambda: not alive(below)), f"left: {alive(below)}"
        await asyncio.to_thread(served.start)
        assert (await played(episode, STATE)).reward == 1.0
        await served.count(hub)
        assert served.recovered == {"replayed": 1}


async def test_a_worker_killed_in_a_turn_ends_its_episode_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as (served, hub):
        struck, restored, other = [(await hub.create("kills", it))[0] for it in ("state", "restored", "state")]
        await other.step(STATE[0])
        await restored.step(cell("n = 7"))
        wait = "import time\nfile = open('struck', 'w')\ntime.sleep(25)"
        turns = [asyncio.create_task(it.step(cell(wait))) for it in (struck, restored)]
        below = descendants(served.pid)
        assert await holds(lambda: len(holding(descendants(served.pid), "struck")) >= 2)
        for pid in holding(descendants(served.pid) | below, "struck"):
            os.kill(pid, signal.SIGKILL)
        ended, back = [await it for it in turns]
        assert (ended.info["outcome"], ended.reward) == ("model_fault", 0.0) and "SIGKILL" in ended.info["reason"]
        assert "was restored" in back.observation["text"] and not back.terminated
        assert "7" in (await restored.step(cell("n"))).observation["text"]
        assert (await played(other, STATE)).reward == 1.0
        assert await holds(lambda: not holding(descendants(served.pid), "struck"))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = folder / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk that can be filled needs root and mounts")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def filled(place: Path) -> Path:
    """A file that takes what room there is."""
    path = place / "full"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                continue
        except OSError:
            return path
    raise AssertionError("the disk has no end")


async def refused(hub: Hub, least: int) -> None:
    """Wait until so many answers could not be logged."""
    for _ in range(1000):
        async with hub._http().get(f"{hub.url}/metrics") as response:
            lines = [it for it in (await response.text()).splitlines() if 'errors_total{code="infra_fault"}' in it]
        if lines and float(lines[0].split()[-1]) >= least:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no answer was refused")


async def test_a_full_disk_holds_answers_back_and_loses_none(tmp_path: Path) -> None:
    with small_disk(tmp_path) as place:
        async with serving(place) as (served, hub):
            (episode,) = await hub.create("kills", "state")
            await episode.step(cell("n = 1"))
            full = filled(place)
            # Larger than what is left in the pages that the log has already.
            step = asyncio.create_task(episode.step(cell("n += 1\nn  #" + "x" * 100_000)))
            await refused(hub, 2)
            assert not step.done()
            full.unlink()
            assert "2" in (await step).observation["text"]
            full = filled(place)
            step = asyncio.create_task(episode.step(cell("n += 1\nn  #" + "y" * 200_000)))
            await refused(hub, 4)
            served.kill()
            full.unlink()
            await asyncio.to_thread(served.start)
            # It was played and not acknowledged: it is played again on the state before it.
            assert "3" in (await step).observation["text"]
            assert "4" in (await episode.step(cell("n += 1\nn"))).observation["text"]


async def test_nothing_is_left_of_a_client_that_vanished(tmp_path: Path) -> None:
    async with serving(tmp_path) as (served, hub):
        async with Hub(served.url) as vanishing:
            episodes = await vanishing.create("kills", "state", count=3, lease_s=1.0)
            await asyncio.gather(*(it.step(cell("file = open('left', 'w')")) for it in episodes))
            busy = asyncio.create_task(episodes[0].step(cell("import time\ntime.sleep(1.5)")))
            await asyncio.sleep(0.2)
            assert len(holding(descendants(served.pid), "left")) >= 3
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
        assert await holds(lambda: not holding(descendants(served.pid), "left"))
        for episode in episodes:
            assert (await hub.call("state", {"episode": episode.id}))["stop"] == "cancelled"
        assert (await hub.call("capabilities", {}))["memory_mb"]["requested"] == 0
