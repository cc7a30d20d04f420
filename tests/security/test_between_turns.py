"""What a turn leaves running does nothing until the next turn, and dies with its box and with its hub."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.records import Text
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.isolation.rest import Rest
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import groups_of, need_jail, python_factory, run, shown, small
from tests.sandboxes.test_lifetime import alive, descendants, until

ROOT = Path(__file__).parents[2]
_GAP_S = 0.4

THREAD = """
import os, threading, time
count = [0]
def work():
    while True:
        count[0] += 1
        os.write(1, b"STRAY")
        time.sleep(0.001)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
"""
DOUBLE_FORK = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        while True:
            os.write(1, b"STRAY")
            open("grows", "a").write("x")
            time.sleep(0.001)
    os._exit(0)
os.wait()
while not os.path.exists("grows"):
    time.sleep(0.01)
"""
TIMER = """
import os, signal
count = [0]
def work(*_):
    count[0] += 1
    os.write(1, b"STRAY")
signal.signal(signal.SIGALRM, work)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
"""
PATCHED_GUEST = """
import gc, os, time
guest = next(o for o in gc.get_objects() if type(o).__name__ == "Guest")
real = guest._receive
def receive():
    guest._receive = real
    stop = time.monotonic() + 30
    while time.monotonic() < stop:
        pass
    return real()
guest._receive = receive
"""


@pytest.fixture
async def factory() -> AsyncIterator[PythonSandbox]:
    async with python_factory() as made:
        if not groups_of(made):
            pytest.skip("no control group can be written here; see the tests of boxes without one")
        yield made


def cpu_s(box: Sandbox) -> float:
    used: float = box._box.usage().cpu_s  # type: ignore[attr-defined]
    return used


async def settled_count(box: Sandbox, code: str) -> int:
    """A number that code of an earlier turn goes on counting, without what it prints."""
    parts = (await run(box, code)).parts
    return int(next(part.text for part in parts if isinstance(part, Text) and part.channel == "value"))


@pytest.mark.parametrize(("code", "count"), [(THREAD, "count[0]"), (TIMER, "count[0]")], ids=["thread", "timer"])
async def test_what_goes_on_in_the_interpreter_stands_still_between_turns(
    factory: PythonSandbox, code: str, count: str
) -> None:
    box = await factory.start(small())
    await run(box, code)
    before = await settled_count(box, count)
    await asyncio.sleep(_GAP_S)
    after = await settled_count(box, count)
    assert after - before < 100, "at a thousand a second it would have counted to 400 in the gap"


async def test_a_double_forked_process_stands_still_between_turns(factory: PythonSandbox) -> None:
    box = await factory.start(small())
    await run(box, DOUBLE_FORK)
    before = len(await box.read_file("grows"))
    await asyncio.sleep(_GAP_S)
    # On a busy machine it may still be in the middle of one write, after which it stops.
    assert len(await box.read_file("grows")) <= before + 1
    assert "STRAY" in await shown(box, "time.sleep(0.2)"), "it goes on within the next turn"


async def test_what_was_written_between_turns_is_dropped_and_said(factory: PythonSandbox) -> None:
    box = await factory.start(small())
    # A lone task is frozen only when it has been idle for a while, so this one writes as soon as its turn is over.
    await run(box, PATCHED_GUEST.replace("pass", 'os.write(1, b"STRAY"); time.sleep(0.02)').replace("30", "0.1"))
    await asyncio.sleep(0.3)
    seen = await run(box, "print('mine')")
    assert "STRAY" not in seen.text and "mine" in seen.text
    assert "written between turns are not shown" in seen.text
    assert not seen.failed


@pytest.mark.parametrize("code", ["x = 1", THREAD, DOUBLE_FORK, TIMER], ids=["none", "thread", "process", "timer"])
async def test_an_idle_episode_uses_no_processor_time(factory: PythonSandbox, code: str) -> None:
    box = await factory.start(small())
    await run(box, code)
    await asyncio.sleep(0.7)
    before = cpu_s(box)
    await asyncio.sleep(_GAP_S)
    assert cpu_s(box) == pytest.approx(before, abs=0.002)


async def test_a_resident_program_that_was_patched_to_work_on_is_frozen(factory: PythonSandbox) -> None:
    box = await factory.start(small())
    await run(box, PATCHED_GUEST)
    await asyncio.sleep(0.8)
    before = cpu_s(box)
    await asyncio.sleep(_GAP_S)
    assert cpu_s(box) == pytest.approx(before, abs=0.002)


async def test_a_frozen_box_can_be_closed_and_nothing_of_it_is_left(factory: PythonSandbox) -> None:
    boxes = [await factory.start(small()) for _ in range(3)]
    for box in boxes:
        await run(box, DOUBLE_FORK)
    groups = groups_of(factory)
    names = [box._box.id for box in boxes]
    for box in boxes:
        await box.close()
        end = await box._box.ended()
        assert not end.host_fault
    assert [path for group in groups.values() for name in names if (path := Path(group, name)).exists()] == []


_HUB = f"""
import asyncio
from tests.sandboxes.boxes import groups_of, python_factory, run, small
async def main():
    async with python_factory() as factory:
        boxes = [await factory.start(small()) for _ in range(3)]
        for box in boxes:
            await run(box, {DOUBLE_FORK!r})
        link = factory._isolation._link
        print(link._process.pid, groups_of(factory).get("freezer", "-"), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("victim", ["hub", "supervisor"])
def test_frozen_boxes_end_with_their_hub_and_with_their_supervisor(victim: str) -> None:
    need_jail()
    process = subprocess.Popen([sys.executable, "-c", _HUB], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        supervisor, group = process.stdout.readline().split()
        below = descendants(process.pid)
        assert len(below) >= 9
        os.kill(process.pid if victim == "hub" else int(supervisor), signal.SIGKILL)
        if victim == "hub":
            process.wait(timeout=20)
            assert until(lambda: not os.path.exists(group), 10)
        assert until(lambda: not alive(below), 10), f"left: {alive(below)}"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def test_without_a_freezer_processes_are_ended_and_threads_are_told(factory: PythonSandbox) -> None:
    box = await factory.start(small())
    inner: Any = box._box
    inner._rest = Rest({}, inner.id, init=inner._init, worker=inner._worker)
    said = await shown(box, DOUBLE_FORK)
    assert "1 processes were ended" in said
    size = len(await box.read_file("grows"))
    await asyncio.sleep(0.1)
    assert len(await box.read_file("grows")) == size
    assert "1 threads are still running" in await shown(box, THREAD)
