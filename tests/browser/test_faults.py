"""Whose doing it is when a page or the browser ends; the next episode is served either way."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from agenthub.episodes import Episode, Workbench
from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import Limits
from agenthub.records import Outcome, Stop
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from agenthub.suites.task import Task
from agenthub.wire import Action, CallIn
from tests.browser.harness import act, files, miniwob, task

pytestmark = [pytest.mark.gui, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
BLOAT = """<button onclick="const kept = []; for (;;) kept.push(new Array(1 << 20).fill(kept.length))">fill</button>"""
HANG = "<button onclick='for (;;);'>hang</button>"


def _browser_processes() -> list[psutil.Process]:
    """The main processes of the Chromiums below this one, by their command lines."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if words and "chromium" in Path(words[0]).name and not any(word.startswith("--type=") for word in words):
            found.append(process)
    return found


async def _played(made: Task, workbench: Workbench, *codes: str, kill_before: int = -1) -> Episode:
    episode = Episode(made, workbench, id="e", group="g", member=0)
    await episode.open()
    try:
        for index, code in enumerate(codes):
            if index == kill_before:
                for process in _browser_processes():
                    os.kill(process.pid, signal.SIGKILL)
            if episode.done:
                break
            call = CallIn(tool="browser", arguments={"code": code})
            await episode.step(Action(calls=[call]), timeout_s=None, generation=None)
    finally:
        await episode.cancel()
    return episode


async def _serves(workbench: Workbench) -> bool:
    episode = await _played(task(miniwob("click-test")), workbench, "mouse_click(5, 100)\nnoop()", "done()")
    assert episode.trajectory is not None
    return episode.trajectory.outcome is Outcome.OK


async def test_a_browser_that_is_killed_from_outside_is_our_fault(workbench: Workbench) -> None:
    episode = await _played(task(miniwob("click-test")), workbench, "noop()", "noop()", "noop()", kill_before=1)
    end = episode.trajectory
    assert end is not None
    assert (end.stop, end.outcome, end.reward) == (Stop.SANDBOX_LOST, Outcome.INFRA_FAULT, None)
    assert await _serves(workbench)


@pytest.mark.parametrize("reset", ["context", "browser"])
async def test_a_page_that_takes_all_memory_is_the_models_fault(workbench: Workbench, reset: str) -> None:
    spec = SandboxSpec(
        files={"index.html": b"<a href='/bloat.html'>more</a>", "bloat.html": BLOAT.encode()},
        params=files({}, reset=reset).params,
        limits=Limits(memory_mb=1024),
    )
    made = task(spec)
    episode = await _played(made, workbench, "goto('/bloat.html')", "mouse_click(25, 20)", "noop()")
    end = episode.trajectory
    assert end is not None
    assert (end.stop, end.outcome, end.reward) == (Stop.SANDBOX_LOST, Outcome.MODEL_FAULT, 0.0)
    assert await _serves(workbench)


async def test_a_page_whose_process_crashes_is_the_models_fault_and_its_neighbour_goes_on(
    factory: BrowserSandbox,
) -> None:
    bystander = await factory.start(miniwob("click-test"))
    session = await factory.start(files({"index.html": "<p>here</p>"}))
    session._context.page.tell("Page.crash")
    with pytest.raises(BoxLost, match="process ended"):
        await act(session, "noop(1000)")
        await act(session, "noop(1000)")
    await session.close()
    assert not (await act(bystander, "noop()")).failed
    await bystander.close()


async def test_a_page_that_hangs_costs_its_time_and_nobody_elses(factory: BrowserSandbox) -> None:
    bystander = await factory.start(miniwob("click-test"))
    session = await factory.start(files({"index.html": HANG}))
    shown = await act(session, "mouse_click(25, 20)", timeout_s=2)
    assert shown.failed and "did not answer" in shown.text
    assert not (await act(bystander, "noop()")).failed
    await session.close()
    await bystander.close()
    again = await factory.start(files({"index.html": "<p>here</p>"}))
    assert "here" in again.opening
    await again.close()


async def test_a_shared_browser_that_ends_by_itself_is_the_fault_of_whoever_was_acting(chromium: str) -> None:
    alone = BrowserSandbox()
    await alone.open()
    try:
        bystander = await alone.start(miniwob("click-test"))
        session = await alone.start(files({"index.html": HANG}))
        acting = asyncio.ensure_future(act(session, "mouse_click(25, 20)"))
        await asyncio.sleep(0)
        session._context.browser.pipe.tell("Browser.crash")
        with pytest.raises(BoxLost, match="the browser ended: ended by signal"):
            await acting
        with pytest.raises(HostFault, match="by another episode's page"):
            await act(bystander, "noop()")
        await session.close()
        await bystander.close()
    finally:
        await alone.close()


async def test_a_jail_that_is_lost_is_our_fault(chromium: str) -> None:
    alone = BrowserSandbox()
    await alone.open()
    try:
        session = await alone.start(miniwob("click-test"))
        assert alone._leases is not None
        await alone._leases.browsers[0].box.kill()
        with pytest.raises(HostFault, match="browser"):
            await act(session, "noop()")
        await session.close()
        again = await alone.start(miniwob("click-test"))
        assert "Click the button" in again.opening
        await again.close()
    finally:
        await alone.close()
