"""Seats from starts: episodes that are created, forked, or opened a second time after a critique."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from itertools import groupby
from typing import Any, TypeVar

from agenthub.client import EpisodeHandle, Hub
from agenthub.codec import decode
from agenthub.errors import HostFault, WireError
from agenthub.records import Message, Observation, Text, Trajectory
from agenthub.renderer import Renderer
from agenthub.rollout.seats import Group, Lead, Seat, unplayed
from agenthub.rollout.types import CollectStats, Start
from agenthub.sandbox import ToolSpec
from agenthub.wire import LimitsIn

__all__ = ["Begun", "Opener", "end", "together"]

T = TypeVar("T")
SETTLE_S = 5.0
"""How long a rollout that is cancelled waits for episodes that are being opened; after that their leases end them."""
BROKEN = ("env_fault", "task_quarantined")
UNSOUND = ("fork_refused", "not_deterministic")
"""A copy would not be what it says; the same request would be refused again."""

Begun = tuple[Group, Start]


class Opener:
    """Opens what starts say, and says what became of each."""

    def __init__(self, hub: Hub, renderer: Renderer, stats: CollectStats, *, lease_s: float) -> None:
        self._hub, self._renderer, self._stats, self._lease_s = hub, renderer, stats, lease_s
        self.lost: list[Begun] = []
        """Starts that our side could not open."""
        self.reason = ""
        """Why the last of them was lost."""

    async def open(self, starts: Sequence[Begun]) -> list[Seat]:
        """Seats in the order of the starts; where an exception or a cancellation ends it, none is left open.

        A start of a broken task ends its member as unplayed, one that our side cannot open is among `lost`, a fork that
        is refused is counted.

        Raises:
            WireError, HubUnreachable: as the client raises them.
        """
        made: list[Seat] = []
        runs = [list(rows) for _, rows in groupby(enumerate(starts), _kind(starts))]
        try:
            found = await together(self._run([row for _, row in rows], made) for rows in runs)
        except BaseException:
            await end(made)
            raise
        return [seat for seats in found for seat in seats]

    async def _run(self, rows: Sequence[Begun], made: list[Seat]) -> list[Seat]:
        """One request for starts of one group: roots that follow each other, or forks of one state."""
        group, first = rows[0]
        starts = [start for _, start in rows]
        try:
            if first.parent is None:
                seats = await self._roots(group, starts)
            else:
                seats = await self.forks(group, starts)
        except HostFault as fault:
            self.reason = str(fault)
            self.lost += rows
            return []
        except WireError as refused:
            self._refused(refused, group, starts)
            return []
        made += seats
        return seats

    def _refused(self, refused: WireError, group: Group, starts: Sequence[Start]) -> None:
        if refused.code in UNSOUND and starts[0].parent is not None:
            self._stats.refused += len(starts)
        elif refused.code in BROKEN:
            ended = {start.member: unplayed(group.play, start.member, refused.message) for start in starts}
            group.ended.update(ended)
        else:
            raise refused

    async def _roots(self, group: Group, starts: Sequence[Start]) -> list[Seat]:
        play = group.play
        handles = await _settled(
            self._hub.create(
                play.suite,
                task=play.task,
                count=len(starts),
                group=play.group,
                first_member=starts[0].member,
                limits=LimitsIn(max_turns=play.max_turns) if play.max_turns else None,
                lease_s=self._lease_s,
            )
        )
        return [self._root(group, start, handle) for start, handle in zip(starts, handles, strict=True)]

    def _root(self, group: Group, start: Start, handle: EpisodeHandle) -> Seat:
        messages = [decode(Message, row) for row in handle.observation["messages"]]
        tools = [decode(ToolSpec, row) for row in handle.observation["tools"]]
        prompt = self._renderer.open(messages, tools)
        lead = None
        if start.critique is not None:
            context = self._criticised(group.ended[start.critique.of], start.critique.text)
            lead = Lead(len(context), prompt, start.critique.policy)
        seat = Seat(
            play=group.play,
            start=start,
            handle=handle,
            prompt=context if lead else prompt.tolist(),
            max_tokens=int(handle.info["limits"]["max_tokens"]),
            turns=[],
            lead=lead,
        )
        group.seats[start.member] = seat
        return seat

    def _criticised(self, attempt: Trajectory, text: str) -> list[int]:
        """The attempt's whole context by its ids, what its last turn showed, and the critique."""
        last = attempt.turns[-1]
        assert last.generation is not None  # the collector played it
        ids = last.generation.ids.tolist()
        shown = (*last.observations, Observation(call_id="", parts=(Text(text=text, channel="notice"),)))
        closed = bool(ids) and ids[-1] in self._renderer.stop_ids
        return [*last.generation.prompt_ids.tolist(), *ids, *self._renderer.extend(shown, ended=closed).tolist()]

    async def forks(self, group: Group, starts: Sequence[Start]) -> list[Seat]:
        """Forks of the state of one member before one turn.

        Raises:
            WireError: one of UNSOUND, also where the member did not get so far. HostFault: our side failed.
        """
        parent, turn = group.seats.get(int(starts[0].parent or 0)), starts[0].turn
        context = parent.before(turn) if parent else None
        if parent is None or context is None:
            raise WireError("fork_refused", 409, f"member {starts[0].parent} did not get to turn {turn}")
        now = turn == len(parent.turns) and not parent.ended
        handles = await _settled(parent.handle.fork(len(starts), None if now else turn))
        seats = [
            Seat(
                play=group.play,
                start=start,
                handle=handle,
                prompt=list(context),
                max_tokens=parent.max_tokens,
                turns=parent.turns[:turn],
                contexts=parent.contexts[:turn],
                parent=f"{group.play.group}[{parent.member}]",
            )
            for start, handle in zip(starts, handles, strict=True)
        ]
        group.seats |= {seat.member: seat for seat in seats}
        return seats


def _kind(starts: Sequence[Begun]) -> Any:
    """A key by which neighbours that one request can open are equal."""

    def key(row: tuple[int, Begun]) -> tuple[Any, ...]:
        place, (group, start) = row
        if start.parent is not None:
            return (group.play.group, start.parent, start.turn)
        return (group.play.group, None, start.member - place)

    return key


async def _settled(work: Coroutine[Any, Any, list[EpisodeHandle]]) -> list[EpisodeHandle]:
    """What `work` opens. A caller that is cancelled meanwhile leaves nothing open: it waits, and ends the episodes."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=SETTLE_S)
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            await _close(task.result())
        raise


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first exception ends the others, and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _close(handles: Sequence[EpisodeHandle]) -> None:
    closing = asyncio.gather(*(handle.close() for handle in handles), return_exceptions=True)
    await asyncio.shield(closing)


async def end(seats: Sequence[Seat]) -> None:
    """End the episodes that go on; what the hub has lost is left to it."""
    live = [seat.handle for seat in seats if not seat.over]
    if live:
        await _close(live)
