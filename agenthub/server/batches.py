"""A batch of steps: lines as they finish, in whatever order, and what is late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from agenthub.server.answers import dumps
from agenthub.wire import Batch, StepOf

__all__ = ["lines_of"]


async def lines_of(batch: Batch, play: Callable[[StepOf], Awaitable[bytes]]) -> AsyncGenerator[list[bytes], None]:
    """Lines of JSON as steps finish, at least one at a time; `late` ones at the deadline.

    Only the waiting for steps ends with the generator: `play` joins work that somebody else owns.
    """
    finished: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
    waiting = dict(enumerate(batch.steps))

    async def one(index: int, step: StepOf) -> None:
        finished.put_nowait((index, await play(step)))

    tasks = [asyncio.ensure_future(one(index, step)) for index, step in waiting.items()]
    ends = None if batch.deadline_s is None else asyncio.get_running_loop().time() + batch.deadline_s
    try:
        while waiting:
            lines = await _ready(finished, ends)
            if not lines:
                break
            for index, _ in lines:
                del waiting[index]
            yield [line for _, line in lines]
        if waiting:
            yield _late(list(waiting.values()))
    finally:
        for task in tasks:
            task.cancel()


def _late(steps: Sequence[StepOf]) -> list[bytes]:
    return [dumps({"episode": step.episode, "turn": step.turn, "late": True}) for step in steps]


async def _ready(finished: asyncio.Queue[tuple[int, bytes]], ends: float | None) -> list[tuple[int, bytes]]:
    """What has finished, at least one; nothing where `ends` (of the loop's clock) comes first."""
    try:
        async with asyncio.timeout_at(ends):
            lines = [await finished.get()]
    except TimeoutError:
        return []
    while not finished.empty():
        lines.append(finished.get_nowait())
    return lines
