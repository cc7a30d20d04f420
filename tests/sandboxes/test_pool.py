"""The warm pool, over an isolation made of socket pairs."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agenthub.errors import HostFault
from agenthub.isolation import Box, BoxSpec, Isolation
from agenthub.sandboxes import pool as pool_module
from agenthub.sandboxes.pool import Pool


class FakeBox:
    """A box that is a socket pair; `die` closes its far end."""

    def __init__(self, number: int) -> None:
        self.id = str(number)
        self._near, self._far = socket.socketpair()
        self.discarded = False

    def fileno(self) -> int:
        return self._near.fileno()

    def die(self) -> None:
        self._far.close()

    def discard(self) -> None:
        self.discarded = True
        self._near.close()
        self._far.close()


class FakeIsolation:
    """Counts what it starts; fails while `broken`."""

    def __init__(self) -> None:
        self.boxes: list[FakeBox] = []
        self.broken = False

    async def spawn(self, spec: BoxSpec) -> FakeBox:
        await asyncio.sleep(0)
        if self.broken:
            raise HostFault("broken")
        self.boxes.append(FakeBox(len(self.boxes)))
        return self.boxes[-1]


def pool_of(isolation: FakeIsolation, *, low: int = 1, high: int = 4, most: int | None = None) -> Pool:
    as_isolation: Isolation = isolation  # type: ignore[assignment]
    return Pool(as_isolation, BoxSpec(image="python"), low=low, high=high, most=most)


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_first_box_is_cold_and_the_next_are_warm() -> None:
    isolation = FakeIsolation()
    pool = pool_of(isolation)
    await pool.take()
    await settle()
    assert len(isolation.boxes) == 5
    warm = await pool.take()
    assert warm is isolation.boxes[1]  # type: ignore[comparison-overlap]
    await pool.close()


async def test_no_box_is_given_twice_and_the_pool_fills_at_its_low_mark() -> None:
    isolation = FakeIsolation()
    pool = pool_of(isolation)
    taken: list[Box] = [await pool.take()]
    await settle()
    taken += [await pool.take() for _ in range(2)]
    await settle()
    assert len(isolation.boxes) == 5
    taken.append(await pool.take())
    await settle()
    assert len(isolation.boxes) == 8
    assert len({box.id for box in taken}) == 4
    await pool.close()


async def test_a_warm_box_that_died_is_not_given() -> None:
    isolation = FakeIsolation()
    pool = pool_of(isolation)
    await pool.take()
    await settle()
    isolation.boxes[1].die()
    assert (await pool.take()).id == "2"
    assert isolation.boxes[1].discarded
    await pool.close()


async def test_a_fault_is_told_to_who_asks_and_the_pool_recovers() -> None:
    isolation = FakeIsolation()
    pool = pool_of(isolation)
    isolation.broken = True
    with pytest.raises(HostFault):
        await pool.take()
    await settle()
    isolation.broken = False
    await pool.take()
    await settle()
    assert len(isolation.boxes) == 5
    await pool.close()


async def test_closing_gives_up_what_is_warm() -> None:
    isolation = FakeIsolation()
    pool = pool_of(isolation)
    first = await pool.take()
    await settle()
    await pool.close()
    await pool.close()
    assert [box.discarded for box in isolation.boxes] == [False, True, True, True, True]
    assert first is isolation.boxes[0]  # type: ignore[comparison-overlap]


def test_water_marks_that_contradict_are_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        pool_of(FakeIsolation(), low=4, high=4)


async def test_a_pool_follows_the_demand_and_gives_back_what_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "RECENT_S", 0.2)
    isolation = FakeIsolation()
    pool = pool_of(isolation, high=2, most=6)
    taken = await asyncio.gather(*(pool.take() for _ in range(10)))
    await settle()
    assert len(isolation.boxes) == 16
    await asyncio.sleep(0.5)
    assert sum(box.discarded for box in isolation.boxes) == 4
    assert len(taken) == 10
    await pool.close()
    assert sum(box.discarded for box in isolation.boxes) == 6
