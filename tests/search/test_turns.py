"""Turns at a host: how many at once, and the pause between them."""

from __future__ import annotations

import asyncio

from agenthub.sandboxes.search.turns import HostTurns


async def test_a_host_has_a_few_turns_at_once_and_another_host_its_own() -> None:
    turns, inside, most = HostTurns(2, 0.0), 0, 0
    go_on = asyncio.Event()

    async def one(host: str) -> None:
        nonlocal inside, most
        async with turns.turn(host):
            inside += host == "a"
            most = max(most, inside)
            await go_on.wait()
            inside -= host == "a"

    waiting = [asyncio.create_task(one("a")) for _ in range(6)]
    other = asyncio.create_task(one("b"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert inside == 2 and not other.done()
    go_on.set()
    await asyncio.gather(*waiting, other)
    assert most == 2


async def test_two_turns_of_one_host_begin_with_a_pause_between() -> None:
    turns, begun = HostTurns(5, 0.05), list[float]()

    async def one() -> None:
        async with turns.turn("a"):
            begun.append(asyncio.get_running_loop().time())

    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(one() for _ in range(4)))
    # Late they may all be; a timer may fire a clock's tick early.
    assert all(at - started >= number * 0.05 - 0.005 for number, at in enumerate(begun))


async def test_a_turn_that_is_given_up_is_free_again() -> None:
    turns = HostTurns(1, 0.0)
    for _ in range(3):
        try:
            async with asyncio.timeout(0.01), turns.turn("a"):
                await asyncio.sleep(60)
        except TimeoutError:
            continue
    async with asyncio.timeout(30), turns.turn("a"):
        pass
