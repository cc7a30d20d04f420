"""A batch of steps: lines as they finish, in whatever order, and what is late."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable

from agenthub.errors import WireError
from agenthub.server.answers import dumps, error_row
from agenthub.wire import Batch, StepOf

__all__ = ["lines_of"]


Answered = Callable[[bytes | WireError], None]


async def lines_of(batch: Batch, play: Callable[[StepOf, Answered], None]) -> AsyncGenerator[list[bytes], None]:
    """Lines of JSON as steps finish, at least one at a time; `late` ones at the deadline.

    `play` begins a step and has it called back with the answer; the steps go on when the generator has ended.
    """
    finished: list[tuple[int, bytes | WireError]] = []
    news = asyncio.Event()
    waiting = dict(enumerate(batch.steps))

    def finish(index: int, answer: bytes | WireError) -> None:
        finished.append((index, answer))
        news.set()

    for index, step in enumerate(batch.steps):
        play(step, functools.partial(finish, index))
    ends = None if batch.deadline_s is None else asyncio.get_running_loop().time() + batch.deadline_s
    while waiting:
        try:
            async with asyncio.timeout_at(ends):
                await news.wait()
        except TimeoutError:
            yield [dumps({"episode": step.episode, "turn": step.turn, "late": True}) for step in waiting.values()]
            return
        news.clear()
        ready, finished[:] = list(finished), []
        yield [_line(waiting.pop(index), answer) for index, answer in ready]


def _line(step: StepOf, answer: bytes | WireError) -> bytes:
    if isinstance(answer, bytes):
        return answer
    return dumps({"episode": step.episode, "turn": step.turn, "status": answer.status, "error": error_row(answer)})
