"""Memory is promised before a box is started, and given back however its episode goes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.errors import WireError
from agenthub.sandbox import SandboxSpec
from agenthub.server.admission import Admission, default_budget_mb, request_mb
from agenthub.suites.task import ToolUse
from tests.fakes import FakeFactory, fake_task
from tests.server.faces import Routes
from tests.server.harness import RunningHub, hub, winning


def act(code: str) -> dict[str, Any]:
    return {"calls": [{"tool": "python", "arguments": {"code": code}}]}


def test_all_of_a_request_is_admitted_or_none() -> None:
    admission = Admission(100)
    tickets = admission.admit(30, 3)
    assert admission.held_mb == 90
    with pytest.raises(WireError) as caught:
        admission.admit(11, 1)
    assert (caught.value.code, caught.value.status) == ("over_capacity", 429)
    assert caught.value.detail == {"asked_mb": 11, "held_mb": 90, "budget_mb": 100, "retry_after_s": 1.0}
    tickets[0].release()
    tickets[0].release()
    assert admission.held_mb == 60
    assert len(admission.admit(20, 2)) == 2


def test_what_never_fits_is_not_worth_asking_again() -> None:
    with pytest.raises(WireError) as caught:
        Admission(100).admit(30, 4)
    assert (caught.value.code, caught.value.status) == ("refused", 422)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4), st.booleans()), max_size=30))
def test_the_sum_is_within_the_budget_and_comes_back_to_nothing(asked: list[tuple[int, int, bool]]) -> None:
    admission, held = Admission(100), []
    for request, count, free in asked:
        with contextlib.suppress(WireError):
            held += admission.admit(request, count)
        assert 0 <= admission.held_mb <= 100
        if free and held:
            held.pop(0).release()
    for ticket in held:
        ticket.release()
    assert admission.held_mb == 0


def test_an_episode_asks_for_each_of_its_boxes_once_and_for_their_copies() -> None:
    small, large = SandboxSpec(), SandboxSpec(request_mb=100)
    tools = (
        ToolUse(name="a", uses="fake", spec=small),
        ToolUse(name="b", uses="fake", tool="other", spec=small),
        ToolUse(name="c", uses="fake", spec=large),
    )
    once = small.request_mb + large.request_mb
    assert request_mb(fake_task(tools=tools)) == once
    assert request_mb(fake_task(tools=tools, on_lost="restore")) == 2 * once
    assert request_mb(fake_task(tools=())) == 0


@pytest.mark.parametrize(
    ("files", "limit_mb"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "104857600\n"}, 100),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "52428800\n"}, 50),
        (
            {"proc/self/cgroup": "9:cpu:/x\n8:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "20971520"},
            20,
        ),
        (
            {"proc/self/cgroup": "8:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
            None,
        ),
        ({}, None),
    ],
    ids=["parent", "none", "container", "version 1", "version 1 none", "no cgroups"],
)
def test_the_budget_is_four_fifths_of_what_there_is(
    tmp_path: Path, files: dict[str, str], limit_mb: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = default_budget_mb(tmp_path / "nothing")
    assert machine > 100
    assert default_budget_mb(tmp_path) == (machine if limit_mb is None else int(0.8 * limit_mb))


async def test_a_hub_that_has_promised_its_memory_says_when_to_come_back(tmp_path: Path) -> None:
    async with hub(tmp_path, memory_mb=450) as served, Routes(served.url) as face:
        asked = {"suite": "forks", "task": "heavy"}
        status, made = await face.call("create", request_id="a", count=3, **asked)
        assert status == 201
        started = len(FakeFactory.made)
        first = made["episodes"][0]["id"]
        for op, more in (("create", asked), ("fork", {"episode": first})):
            async with face._session.post(
                served.url + ("/v1/episodes" if op == "create" else f"/v1/episodes/{first}/fork"),
                json={"request_id": "b", "count": 2, **{k: v for k, v in more.items() if k != "episode"}},
            ) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
                assert (await refused.json())["error"]["code"] == "over_capacity"
        assert len(FakeFactory.made) == started
        assert (await face.call("fork", request_id="c", episode=first, count=1))[0] == 201
        assert (await face.call("capabilities"))[1]["memory_mb"] == {"budget": 450, "requested": 400}
        status, body = await face.call("create", request_id="d", count=5, **asked)
        assert (status, body["error"]["code"]) == (422, "refused")
        assert (await face.call("create", request_id="e", count=20, suite="forks", task="plain"))[0] == 201
        await face.call("delete", episode=first)
        assert (await face.call("create", request_id="b", count=1, **asked))[0] == 201
        async with face._session.get(f"{served.url}/metrics") as response:
            assert "agenthub_memory_requested_mb 400" in await response.text()


WAYS = ("win", "lost", "host", "delete", "fork", "early", "refuse", "broken", "full", "vanish")


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_becomes_of_episodes_nothing_stays_promised(tmp_path: Path, seed: int) -> None:
    """The harness asserts it when the hub has ended; here also once every episode has."""
    dice = random.Random(seed)
    async with hub(tmp_path) as served, Routes(served.url) as face:
        live: list[tuple[str, int]] = []
        for number in range(25):
            way = dice.choice(WAYS)
            if not live or dice.random() < 0.4:
                status, made = await face.call(
                    "create",
                    request_id=f"c{number}",
                    suite="forks",
                    task=dice.choice(["live", "heavy", "careful"]),
                    count=2,
                )
                live += [(row["id"], 0) for row in made["episodes"]] if status == 201 else []
                continue
            await _one_way(way, live, number, dice, served, face)
        for episode, _ in live:
            await face.call("delete", episode=episode)
        assert served.dispatcher.admission.held_mb == 0
        assert len(served.dispatcher.table) == 0


async def _one_way(
    way: str, live: list[tuple[str, int]], number: int, dice: random.Random, served: RunningHub, face: Routes
) -> None:
    place = dice.randrange(len(live))
    episode, turn = live[place]
    if way in ("win", "lost", "host"):
        action = winning() if way == "win" else act(way)
        await face.call("step", episode=episode, turn=turn, action=action)
        live[place] = (episode, turn + 1)
    elif way == "delete":
        await face.call("delete", episode=episode)
        del live[place]
    elif way in ("fork", "early"):
        more = {"turn": 0} if way == "early" else {}
        status, made = await face.call("fork", episode=episode, request_id=f"f{number}", count=2, **more)
        live += [(row["id"], row["turn"]) for row in made["episodes"]] if status == 201 else []
    elif way == "refuse":
        await face.call("step", episode=episode, turn=turn, action=act("thread"))
        live[place] = (episode, turn + 1)
        status, _ = await face.call("fork", episode=episode, request_id=f"f{number}")
        assert status in (409, 429)
    elif way == "broken":
        await face.call("create", request_id=f"b{number}", suite="fakes", task="broken", count=3)
    elif way == "full":
        served.log.full = True
        await face.call("create", request_id=f"u{number}", suite="forks", task="heavy")
        await face.call("fork", episode=episode, request_id=f"v{number}")
        served.log.full = False
    else:
        asked = {"episode": episode, "request_id": f"w{number}", "turn": turn}
        leaving = asyncio.create_task(face.call("fork", **asked))
        await asyncio.sleep(0.002)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        status, made = await face.call("fork", **asked)
        live += [(row["id"], row["turn"]) for row in made["episodes"]] if status == 201 else []
