"""Many episodes in a row leave nothing behind: no process, no descriptor, and no memory beyond a bound.

The bound: processes as they were (four may come and go with idle pages), descriptors as they were but two, and the
memory of hub and browser together at most a third or 150 MiB above what it was after the first tenth.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import pytest

from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from tests.browser.harness import act, miniwob, solve

pytestmark = [pytest.mark.gui, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
PAGES = ("click-test", "click-button", "click-dialog", "enter-text", "click-tab")


@dataclass(frozen=True)
class Held:
    processes: int
    descriptors: int
    memory_mb: float


def _held() -> Held:
    own = psutil.Process()
    below = own.children(recursive=True)
    memory = own.memory_info().rss
    for process in below:
        try:
            memory += process.memory_full_info().pss
        except psutil.Error:
            continue
    return Held(processes=len(below), descriptors=len(os.listdir("/proc/self/fd")), memory_mb=memory / (1 << 20))


async def _many(factory: BrowserSandbox, count: int) -> tuple[Held, Held]:
    for index in range(count // 10):
        await solve(factory, PAGES[index % len(PAGES)], index)
    before = _held()
    for index in range(count):
        score, told = await solve(factory, PAGES[index % len(PAGES)], index)
        assert score == 1.0, told
        if index % 10 == 9:
            # Such as share nothing with those before them, too.
            session = await factory.start(miniwob("click-test", index, reset="context"))
            await act(session, "noop()")
            await session.close()
    return before, _held()


def _check(before: Held, after: Held) -> None:
    assert after.processes <= before.processes + 4, (before, after)
    assert after.descriptors <= before.descriptors + 2, (before, after)
    assert after.memory_mb <= max(before.memory_mb * 4 / 3, before.memory_mb + 150), (before, after)


async def test_two_hundred_episodes_in_a_row_leave_nothing_behind(factory: BrowserSandbox) -> None:
    _check(*await _many(factory, 200))


@pytest.mark.slow
async def test_a_thousand_more_leave_nothing_behind(factory: BrowserSandbox) -> None:
    _check(*await _many(factory, 1000))
