"""The hub as a process: what it says, how it stops, and what is left after kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agenthub.client import Hub
from agenthub.codec import trajectory_hash
from agenthub.errors import HostFault, HubUnreachable, WireError
from agenthub.wire import Action
from tests.server.processes import ROOT, arguments, child, gone


def answer(text: str) -> Action:
    return Action(text=None, calls=None, answer=text)


async def test_what_was_acknowledged_survives_a_killed_process(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    with child(log, "--grace-s", "0") as first:
        async with Hub(first.url) as client:
            finished, running = await client.create("fakes", "t0", count=2)
            await running.step("```python\n1\n```")
            done = await finished.step(answer("42"))
            first.process.kill()
            first.process.wait()
            port = first.port
    with child(log, "--grace-s", "0", port=port) as second:
        async with Hub(second.url, retry_s=10) as client:
            record = await client.call("trajectory", {"episode": finished.id})
            assert record["hash"] == done.info["hash"]
            state = await client.call("state", {"episode": finished.id})
            assert (state["done"], state["reward"]) == (True, 1.0)
            again = {"episode": finished.id, "turn": 0, "action": {"answer": "42"}}
            assert (await client.call("step", again))["info"]["hash"] == done.info["hash"]
            with pytest.raises(WireError, match="another body"):
                await client.call("step", {**again, "action": {"answer": "41"}})
            with pytest.raises(HostFault, match="was killed"):
                await client.call("step", {"episode": running.id, "turn": 1, "action": {"answer": "42"}})
            again = {"episode": running.id, "turn": 0, "action": {"text": "```python\n1\n```"}}
            assert (await client.call("step", again))["turn"] == 0


async def test_no_acknowledged_step_is_lost_when_the_hub_is_killed_under_load(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    acknowledged: dict[tuple[str, int], dict[str, object]] = {}

    async def play(client: Hub, episode: str) -> None:
        for turn in range(50):
            step = {"episode": episode, "turn": turn, "action": {"text": f"```python\n{turn}\n```"}}
            acknowledged[episode, turn] = await client.call("step", step)

    with child(log) as first:
        async with Hub(first.url, retry_s=0.5) as client:
            handles = await client.create("fakes", "t0", count=20)
            playing = [asyncio.create_task(play(client, handle.id)) for handle in handles]
            while len(acknowledged) < 200:  # noqa: ASYNC110 - the moment is meant to be arbitrary
                await asyncio.sleep(0.001)
            first.process.kill()
            results = await asyncio.gather(*playing, return_exceptions=True)
            assert all(isinstance(result, HubUnreachable) for result in results)
    with child(log) as second:
        async with Hub(second.url, retry_s=10) as client:
            for (episode, turn), answered in acknowledged.items():
                step = {"episode": episode, "turn": turn, "action": {"text": f"```python\n{turn}\n```"}}
                assert await client.call("step", step) == answered
                assert answered["turn"] == turn


async def test_a_client_goes_on_after_the_hub_came_back(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    async with Hub("http://127.0.0.1:1", retry_s=20) as client:
        with child(log) as first:
            client.url = first.url
            (episode,) = await client.create("fakes", "t0")
            done = await episode.step(answer("42"))
            port = first.port
        with child(log, port=port):
            record = await episode.trajectory()
            assert trajectory_hash(record) == done.info["hash"]
            assert (await client.create("fakes", "t0"))[0].id != episode.id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_within_a_second(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log.sqlite"
    with child(log) as served:
        async with Hub(served.url) as client:
            idle, _ = await client.create("fakes", "t0", count=2)
            served.process.send_signal(number)
            assert served.process.wait(5) == 0
        assert served.process.stderr is not None
        assert "agenthub serving on http://127.0.0.1:" in served.process.stderr.read()
    with child(log) as served:
        async with Hub(served.url) as client:
            assert (await client.call("state", {"episode": idle.id}))["stop"] == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_when_its_parent_does(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready.json"
    command = arguments(tmp_path / "log.sqlite", "--ready-file", str(ready), "--exit-with-parent")
    source = f"import subprocess, time; subprocess.Popen({command!r}); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            if ready.exists():
                break
            time.sleep(0.02)
        pid = json.loads(ready.read_text())["pid"]
        parent.send_signal(number)
        parent.wait()
        assert gone(pid, 5)
    finally:
        parent.kill()
        parent.wait()


def failed(*more: str, log: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        arguments(log, *more), cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    return done.stderr


def test_what_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    assert "AGENTHUB_TOKEN" in failed("--host", "0.0.0.0", log=log)
    assert "grace_s: is -1; expected 0 to 3600" in failed("--grace-s", "-1", log=log)
    assert "only `auto`" in failed("--token", "secret-secret-secret", log=log)
    (tmp_path / "text").write_text("this is no database, but it is long enough to look like one" * 50)
    assert "not an SQLite file" in failed(log=tmp_path / "text")
    with child(log) as served:
        assert "another hub has it open" in failed(log=log)
        taken = failed("--log", str(tmp_path / "other.sqlite"), "--port", str(served.port), log=log)
        assert f"cannot listen on 127.0.0.1:{served.port}" in taken


async def test_a_made_token_is_printed_once_and_needed(tmp_path: Path) -> None:
    with child(tmp_path / "log.sqlite", "--token", "auto") as served:
        assert served.process.stderr is not None
        token = served.process.stderr.readline().removeprefix("token (shown once): ").strip()
        async with Hub(served.url, token) as client:
            assert (await client.suites())[0]["name"] == "fakes"
        async with Hub(served.url, "x" * 20) as client:
            with pytest.raises(WireError, match="401"):
                await client.suites()
