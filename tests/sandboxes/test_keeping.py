"""Boxes that outlive a killed hub: found again as they were, and gone where nobody comes for them."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agenthub.errors import HostFault
from agenthub.sandboxes.isolation.attaching import attach
from agenthub.sandboxes.isolation.launch import Keep
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import need_jail, run, shown, small
from tests.sandboxes.test_lifetime import ROOT, alive, descendants, until


@dataclass(frozen=True, slots=True)
class Killed:
    """A hub that was killed, and what was below it."""

    supervisor: int
    below: set[int]


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Callable[[float], Killed]]:
    """Starts a hub with kept boxes, and kills it."""
    need_jail()
    made: list[Killed] = []

    def make(grace_s: float) -> Killed:
        with _child(tmp_path / "keep" / "s", grace_s) as (process, supervisor):
            below = descendants(process.pid)
            made.append(Killed(supervisor, below))
        return made[-1]

    yield make
    for it in made:
        for pid in alive(it.below):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _child(socket: Path, grace_s: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "tests.sandboxes.kept_child", str(socket), str(grace_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@asynccontextmanager
async def next_hub(socket: Path, grace_s: float = 60.0) -> AsyncIterator[PythonSandbox]:
    factory = PythonSandbox()
    factory.keep_at(socket, grace_s)
    await factory.open()
    try:
        yield factory
    finally:
        await factory.close()


async def test_the_next_hub_goes_on_in_the_boxes_that_were_kept(
    killed: Callable[[float], Killed], tmp_path: Path
) -> None:
    before = killed(60.0)
    assert before.supervisor in alive(before.below)
    async with next_hub(tmp_path / "keep" / "s") as factory:
        assert factory._isolation._link.pid == before.supervisor  # type: ignore[attr-defined]
        first, second = factory.kept("box-0", small()), factory.kept("box-1", small())
        assert first is not None and second is not None
        assert factory.kept("box-0", small()) is None and factory.kept("box-2", small()) is None
        assert await shown(first, "x") == "0\n"
        assert (await shown(second, "x, threading.active_count()")).startswith("(1, 2)\n")
        if not factory.no_fork:
            copies = await first.fork(2)
            assert [await shown(copy, "x") for copy in copies] == ["0\n", "0\n"]
        fresh = await factory.start(small())
        assert await shown(fresh, "1 + 1") == "2\n"
    assert until(lambda: not alive(before.below), 10), f"left: {alive(before.below)}"


async def test_what_is_not_wanted_ends_and_the_rest_goes_on(killed: Callable[[float], Killed], tmp_path: Path) -> None:
    killed(60.0)
    async with next_hub(tmp_path / "keep" / "s") as factory:
        box, _ = factory._isolation._left["box-1"]  # type: ignore[attr-defined]
        factory.forsake(lambda label: label == "box-0")
        assert not (await box.ended()).host_fault
        first = factory.kept("box-0", small())
        assert first is not None and await shown(first, "x") == "0\n"


async def test_it_survives_two_kills(killed: Callable[[float], Killed], tmp_path: Path) -> None:
    before = killed(60.0)
    second = await asyncio.create_subprocess_exec(sys.executable, "-c", _SECOND, str(tmp_path / "keep" / "s"), cwd=ROOT)
    assert await second.wait() == -signal.SIGKILL
    async with next_hub(tmp_path / "keep" / "s") as factory:
        assert factory._isolation._link.pid == before.supervisor  # type: ignore[attr-defined]
        first = factory.kept("box-0", small())
        assert first is not None and await shown(first, "x") == "7\n"


_SECOND = """
import asyncio, os, signal, sys
from pathlib import Path
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import run, small

async def main():
    factory = PythonSandbox()
    factory.keep_at(Path(sys.argv[1]), 60.0)
    await factory.open()
    await run(factory.kept("box-0", small()), "x = 7")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("grace_s", [0.0, 0.5])
def test_without_another_hub_nothing_is_left_after_the_grace(
    killed: Callable[[float], Killed], tmp_path: Path, grace_s: float
) -> None:
    before = killed(grace_s)
    assert until(lambda: not alive(before.below), 15), f"left: {alive(before.below)}"


async def test_a_supervisor_killed_in_the_grace_leaves_nothing(
    killed: Callable[[float], Killed], tmp_path: Path
) -> None:
    before = killed(60.0)
    os.kill(before.supervisor, signal.SIGKILL)
    assert until(lambda: not alive(before.below), 10), f"left: {alive(before.below)}"
    assert await attach(Keep(socket=tmp_path / "keep" / "s", grace_s=60.0)) is None
    async with next_hub(tmp_path / "keep" / "s") as factory:
        assert factory.kept("box-0", small()) is None
        assert await shown(await factory.start(small()), "1") == "1\n"


async def test_a_supervisor_that_dies_after_the_attachment_is_our_fault(
    killed: Callable[[float], Killed], tmp_path: Path
) -> None:
    before = killed(60.0)
    async with next_hub(tmp_path / "keep" / "s") as factory:
        first, second = factory.kept("box-0", small()), factory.kept("box-1", small())
        assert first is not None and second is not None
        os.kill(before.supervisor, signal.SIGKILL)
        for sandbox in (first, second):
            with pytest.raises(HostFault):
                # The news may take a moment.
                for _ in range(500):
                    await run(sandbox, "x")
                    await asyncio.sleep(0.02)
        assert until(lambda: not alive(before.below), 10), f"left: {alive(before.below)}"
        assert await shown(await factory.start(small()), "1") == "1\n"


async def test_a_hub_that_lives_keeps_its_supervisor_to_itself(tmp_path: Path) -> None:
    need_jail()
    async with next_hub(tmp_path / "keep" / "s") as factory:
        folder = tmp_path / "keep"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        sandbox = await factory.start(small())
        sandbox.keep("box")
        assert await attach(Keep(socket=folder / "s", grace_s=60.0)) is None
        assert await shown(sandbox, "1") == "1\n"


async def test_a_folder_that_others_can_reach_is_not_used(tmp_path: Path) -> None:
    need_jail()
    folder = tmp_path / "keep"
    folder.mkdir(mode=0o755)
    assert await attach(Keep(socket=folder / "s", grace_s=60.0)) is None
    with pytest.raises(HostFault, match="not ours alone"):
        async with next_hub(folder / "s"):
            pass


async def test_what_is_closed_is_kept_no_longer(tmp_path: Path) -> None:
    need_jail()
    async with next_hub(tmp_path / "keep" / "s") as factory:
        folder = f"/proc/{factory._isolation._link.pid}/fd"  # type: ignore[attr-defined]
        before = len(os.listdir(folder))
        for number in range(20):
            sandbox = await factory.start(small())
            sandbox.keep(f"box-{number}")
            sandbox.keep(f"again-{number}")
            await run(sandbox, "1")
            await sandbox.close()
        assert await asyncio.to_thread(until, lambda: len(os.listdir(folder)) <= before, 10)
