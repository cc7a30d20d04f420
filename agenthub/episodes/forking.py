"""Copies of an episode's sandboxes: of the live ones where they can be copied, else by making its calls again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from agenthub.codec import observation_hash
from agenthub.episodes.boxes import Boxes, Shown, copyable
from agenthub.episodes.past import FileWrite, Past, Step
from agenthub.episodes.workbench import Workbench
from agenthub.errors import BoxLost, ForkRefused, HostFault, WireError
from agenthub.suites.task import Task, TaskLimits

__all__ = ["Differs", "check_turn", "copies", "copy_of", "replayed"]

_AT_ONCE = 8
"""Replays of one request that run at once."""


class Differs(HostFault):
    """A replay showed something else, though task and sandboxes promise that it would not."""

    def __init__(self, text: str, turn: int) -> None:
        super().__init__(text)
        self.turn = turn
        """The first that differs."""


def check_turn(id: str, turn: int, next_turn: int, *, live: bool) -> None:
    """Raise ForkRefused where an episode has no state before the step of `turn`."""
    if not 0 <= turn <= next_turn:
        raise ForkRefused(f"episode {id} has played {next_turn} turns: there is no state before turn {turn}")
    if turn == next_turn and not live:
        raise ForkRefused(f"episode {id} has ended: it can be forked from a turn before its end, 0 to {next_turn - 1}")


async def copies(task: Task, workbench: Workbench, past: Past, count: int, live: Boxes | None) -> list[Boxes]:
    """`count` sets of sandboxes in the state that an episode's were in after `past`.

    Args:
        live: the episode's own where they are in that state now.

    Raises:
        ForkRefused: a copy would not be sound, or a sandbox can be neither copied nor replayed.
        WireError, HostFault: as `replayed` does. No copy is left behind in any case.
    """
    if live is not None and live.copyable:
        return await _forked(live, count, past.limits)
    if count == 1 or not await copyable(task, workbench):
        return await _replays(task, workbench, past, count)
    first = await replayed(task, workbench, past)
    try:
        with suppress(ForkRefused):
            return [first, *await _forked(first, count - 1, past.limits)]
        return [first, *await _replays(task, workbench, past, count - 1)]
    except BaseException:
        await asyncio.shield(first.close())
        raise


async def _replays(task: Task, workbench: Workbench, past: Past, count: int) -> list[Boxes]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def one() -> Boxes:
        async with room:
            return await replayed(task, workbench, past)

    tasks: list[asyncio.Task[Boxes]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(count)]
    except BaseException as error:
        made = [it.result() for it in tasks if it.done() and not it.cancelled() and it.exception() is None]
        await asyncio.shield(asyncio.gather(*(boxes.close() for boxes in made)))
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from None
        raise
    return [it.result() for it in tasks]


async def _forked(live: Boxes, count: int, limits: TaskLimits) -> list[Boxes]:
    try:
        async with asyncio.timeout(limits.setup_seconds):
            return await live.fork(count)
    except TimeoutError:
        raise HostFault(f"the copies were not ready within {limits.setup_seconds:g} s") from None
    except BoxLost as lost:
        raise ForkRefused(f"the sandbox cannot be copied: {lost}") from None


async def copy_of(live: Boxes, limits: TaskLimits) -> Boxes | None:
    """One copy of live sandboxes to go back to; None where there can be none."""
    try:
        return (await _forked(live, 1, limits))[0] if live.copyable else None
    except (ForkRefused, HostFault):
        return None


async def replayed(task: Task, workbench: Workbench, past: Past) -> Boxes:
    """Fresh sandboxes in which the calls of `past` were made again and showed the same.

    Raises:
        ForkRefused: a file was written from outside and is not kept, or a sandbox cannot be replayed.
        WireError: 409 `not_deterministic`: a turn showed something else, and neither task nor sandboxes promise that it
            would not.
        Differs: a turn showed something else though they do.
        HostFault: our side failed.
    """
    if any(write.data is None for write in past.writes):
        raise ForkRefused("files were written into the episode from outside and are not kept")
    boxes = Boxes(workbench)
    try:
        async with asyncio.timeout(past.limits.setup_seconds):
            await boxes.start(task)
    except TimeoutError:
        raise HostFault(f"the sandboxes did not start within {past.limits.setup_seconds:g} s") from None
    try:
        if past.steps:
            boxes.check_replayable()
        for step in past.steps:
            await _written(boxes, [write for write in past.writes if write.turn == step.turn.index])
            if not step.restored:
                await _again(task, boxes, step, past)
        await _written(boxes, [write for write in past.writes if write.turn == len(past.steps)])
    except BoxLost as lost:
        await asyncio.shield(boxes.close())
        raise ForkRefused(f"the replay lost its sandbox: {lost}") from None
    except BaseException:
        await asyncio.shield(boxes.close())
        raise
    return boxes


async def _written(boxes: Boxes, writes: list[FileWrite]) -> None:
    for write in writes:
        assert boxes.workspace is not None and write.data is not None  # it was written into one, and is kept
        await boxes.workspace.write_file(write.path, write.data)


async def _again(task: Task, boxes: Boxes, step: Step, past: Past) -> None:
    turn = step.turn
    if not turn.calls:
        return
    shown = await boxes.run(turn.calls, min(past.limits.turn_seconds, step.timeout_s or past.limits.turn_seconds))
    if isinstance(shown.lost, HostFault):
        raise shown.lost
    if [observation_hash(it) for it in shown.observations] == [observation_hash(it) for it in turn.observations]:
        return
    said = f"turn {turn.index} showed {_text(step)!r} and, made again, {_text(shown)!r}"
    if task.deterministic and boxes.deterministic:
        raise Differs(f"the replay differs: {said}", turn.index)
    raise WireError("not_deterministic", 409, f"the episode cannot be replayed: {said}", {"turn": turn.index})


def _text(what: Step | Shown) -> str:
    observations = what.turn.observations if isinstance(what, Step) else what.observations
    return "".join(observation.text for observation in observations)[:200]
