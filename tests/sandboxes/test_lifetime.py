"""Whatever is killed, in whatever way, nothing of a jail is left, and what still lives goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import BoxSpec
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.isolation import cgroups
from agenthub.sandboxes.isolation.jail import Jail
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import SMALL, groups_of, need_jail, python_factory, run, shown, small

ROOT = Path(__file__).parents[2]


def until(holds: Callable[[], bool], patience_s: float) -> bool:
    """Wait until something holds; False where it does not within the patience."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def descendants(pid: int) -> set[int]:
    """Every living process below one."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        here = waiting.pop()
        try:
            children = Path(f"/proc/{here}/task/{here}/children").read_text().split()
        except OSError:
            continue
        found |= set(map(int, children))
        waiting += map(int, children)
    return found


def members(group: str) -> list[str]:
    """Every process in a control group's children."""
    return [pid for path in Path(group).glob("*/cgroup.procs") for pid in path.read_text().split()]


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if _state(pid) not in ("", "Z", "X")}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class RunningHub:
    """A hub with boxes in a process of its own."""

    process: subprocess.Popen[str]
    supervisor: int
    below: set[int]
    """Every process below it."""
    group: str
    """A control group over its boxes; `-` where none is written."""


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    need_jail()
    command = [sys.executable, "-m", "tests.sandboxes.hub_child"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        supervisor, group, count = process.stdout.readline().split()
        below = descendants(process.pid)
        assert int(supervisor) in below and len(below) >= 2 + 2 * int(count)
        yield RunningHub(process, int(supervisor), below, group)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_hub_that_ends_takes_everything_with_it(hub: RunningHub, number: signal.Signals) -> None:
    hub.process.send_signal(number)
    hub.process.wait(timeout=20)
    assert until(lambda: not alive(hub.below), 10), f"left: {alive(hub.below)}"
    assert until(lambda: not os.path.exists(hub.group), 10)


def test_a_supervisor_killed_takes_its_boxes_with_it(hub: RunningHub) -> None:
    os.kill(hub.supervisor, signal.SIGKILL)
    assert until(lambda: not alive(hub.below), 10), f"left: {alive(hub.below)}"
    assert hub.process.poll() is None
    # Nobody of that hub is left to remove the groups; the next supervisor of the machine does.
    cgroups.sweep(cgroups.find())
    assert not os.path.exists(hub.group)


@pytest.fixture
async def factory() -> AsyncIterator[PythonSandbox]:
    async with python_factory() as made:
        yield made


def supervisor_of(factory: PythonSandbox) -> int:
    pid: int = factory._isolation._link._process.pid  # type: ignore[attr-defined]
    return pid


async def test_a_supervisor_that_dies_in_a_turn_is_our_fault_and_the_next_episode_is_served(
    factory: PythonSandbox,
) -> None:
    sandbox = await factory.start(small())
    async with asyncio.TaskGroup() as group:
        turn = group.create_task(_fault(sandbox))
        await asyncio.sleep(0.2)
        os.kill(supervisor_of(factory), signal.SIGKILL)
    assert turn.result() is HostFault
    after = await factory.start(small())
    assert await shown(after, "6 * 7") == "42\n"


async def _fault(sandbox: Sandbox) -> type[Exception] | None:
    try:
        await run(sandbox, "import time\ntime.sleep(30)")
    except (HostFault, BoxLost) as error:
        return type(error)
    return None


async def test_a_worker_killed_from_outside_is_the_boxs_loss_and_others_go_on(factory: PythonSandbox) -> None:
    one, two = await factory.start(small()), await factory.start(small())
    with pytest.raises(BoxLost, match="SIGKILL"):
        await run(one, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert await shown(two, "1 + 1") == "2\n"


async def test_a_closed_box_frees_its_group_and_its_processes(factory: PythonSandbox) -> None:
    sandbox = await factory.start(small())
    await run(sandbox, "import os\nfor _ in range(5):\n if os.fork() == 0:\n  while True: pass")
    group = groups_of(factory).get("pids", "")
    before = set(os.listdir(group)) if group else set()
    box = sandbox._box
    assert not group or box.id in before
    await sandbox.close()
    end = await box.ended()
    assert end.code is None and not end.host_fault
    assert not group or box.id not in set(os.listdir(group))


async def test_a_box_whose_hub_lets_go_of_it_ends() -> None:
    need_jail()
    jail = Jail()
    await jail.open()
    try:
        spawning = asyncio.ensure_future(jail.spawn(BoxSpec(image="python", limits=SMALL)))
        await asyncio.sleep(0)
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        box = await jail.spawn(BoxSpec(image="python", limits=SMALL))
        assert (await box.kill()).code is None
        assert jail._link is not None
        group = jail._link.facts["groups"].get("pids")
        if group is not None:
            assert until(lambda: not os.path.exists(f"{group}/{box.id}"), 10)
    finally:
        await jail.close()


async def test_many_boxes_at_once_come_and_go(factory: PythonSandbox) -> None:
    async def episode(number: int) -> str:
        sandbox = await factory.start(small())
        try:
            return await shown(sandbox, f"{number} * 2")
        finally:
            await sandbox.close()

    texts = await asyncio.gather(*(episode(number) for number in range(48)))
    assert texts == [f"{number * 2}\n" for number in range(48)]


async def test_descriptors_are_given_back(factory: PythonSandbox) -> None:
    for _ in range(2):
        sandbox = await factory.start(small())
        await run(sandbox, "1")
        await sandbox.close()
    await factory.close()
    before = len(os.listdir("/proc/self/fd"))
    async with python_factory() as other:
        for _ in range(5):
            sandbox = await other.start(small())
            await run(sandbox, "1")
            await sandbox.close()
    assert len(os.listdir("/proc/self/fd")) <= before
