"""Opening groups of episodes, from a task or as copies of an episode, each request exactly once.

Owns the idempotence of openings: a request is known by its id and the hash of its body. Either all episodes of a
request are open and logged, or none is left.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from pydantic import BaseModel

from agenthub.codec import decode, encode
from agenthub.episodes import Episode, Past, Workbench, new_id
from agenthub.episodes.boxes import distinct
from agenthub.errors import WireError
from agenthub.log import EpisodeLog, EpisodeRow, RequestRow
from agenthub.records import Trajectory
from agenthub.server.access import Principal
from agenthub.server.admission import Admission, Ticket, request_mb
from agenthub.server.answers import digest, dumps
from agenthub.server.catalog import Catalog
from agenthub.server.ledger import Ledger
from agenthub.server.live import Live
from agenthub.server.owner import Job, Owner
from agenthub.server.params import ForkOf, canonical_json
from agenthub.server.table import EpisodeTable
from agenthub.suites.task import Task
from agenthub.wire import CreateEpisodes, EpisodesCreated

__all__ = ["Opener"]

_AT_ONCE = 64
_LEASE_S = 60.0
"""Of copies of an episode that has ended; those of a live one have its lease."""


@dataclass(frozen=True, slots=True)
class _Opening:
    """A request that opens episodes now."""

    hash: str
    job: Job[bytes]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the log keeps of a request, and who asks."""

    id: str
    """The owner's name and his own id: two owners' requests never meet."""
    hash: str
    who: Principal


class Opener:
    """Opens episodes and hands them to the table."""

    def __init__(
        self,
        catalog: Catalog,
        workbench: Workbench,
        log: EpisodeLog,
        owner: Owner,
        table: EpisodeTable,
        admission: Admission,
        ledger: Ledger,
        *,
        max_episodes: int,
    ) -> None:
        self._catalog, self._workbench, self._log = catalog, workbench, log
        self._owner, self._table = owner, table
        self._admission, self._max_episodes = admission, max_episodes
        self._ledger = ledger
        self._openings: dict[str, _Opening] = {}
        self._opening = 0
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def create(self, request: CreateEpisodes, who: Principal) -> bytes:
        """Open episodes; the same request id again gives the same answer.

        Raises:
            WireError: 404 unknown suite or task, 409 `request_conflict` or `task_quarantined`, 422 the task cannot be
                had here, 429 `too_many_episodes`, `over_capacity` or `quota_exceeded`, 503 `infra_fault`. Nothing is
                left open in any case.
        """
        return await self._once(request.request_id, request, who, lambda it: self._create(request, it))

    async def fork(self, request: ForkOf, who: Principal) -> bytes:
        """Copy an episode, a live one or one that has ended; the same request id again gives the same answer.

        Raises:
            WireError: 404, 409 `request_conflict`, `fork_refused` or `not_deterministic`, 410 `episode_lost`, 429 and
                503 as `create`. Nothing is left open in any case.
        """
        return await self._once(request.request_id, request, who, lambda it: self._fork(request, it))

    async def _once(
        self, own_id: str, body: BaseModel, who: Principal, work: Callable[[_Request], Awaitable[bytes]]
    ) -> bytes:
        hashed, id = digest(canonical_json(body)), f"{who.name}/{own_id}"
        opening = self._openings.get(id)
        if opening is None:
            opening = _Opening(hashed, self._owner.start(self._answer(_Request(id, hashed, who), work)))
            self._openings[id] = opening
        elif opening.hash != hashed:
            raise _request_conflict(own_id)
        return await opening.job.join()

    async def _answer(self, request: _Request, work: Callable[[_Request], Awaitable[bytes]]) -> bytes:
        try:
            known = await self._log.request(request.id)
            if known is None:
                return await work(request)
            if known.hash != request.hash:
                raise _request_conflict(request.id.partition("/")[2])
            return known.answer
        finally:
            self._openings.pop(request.id, None)

    async def _create(self, request: CreateEpisodes, logged: _Request) -> bytes:
        task = await self._task(request)
        made = self._make(request, task)
        with self._room(task, request.count, logged.who) as tickets:
            with self._catalog.quarantine.watching(task):
                await self._open_all(made)
            return await self._adopted(made, tickets, request.lease_s, logged)

    async def _fork(self, request: ForkOf, logged: _Request) -> bytes:
        live = await self._table.get(request.episode)
        if live is not None:
            live.renew()
            # A replay of earlier turns needs none of the live sandboxes; a step may run meanwhile.
            early = request.turn is not None and request.turn < live.episode.next_turn
            with self._room(live.episode.task, request.count, logged.who) as tickets:
                async with nullcontext() if early else self._table.copying(live):
                    if early or not live.episode.done:
                        made = await live.episode.fork(request.count, request.turn)
                        live.renew()
                        return await self._adopted(made, tickets, live.lease_s, logged)
        row, recorded = await self._table.ended(request.episode)
        suite, _, id = row.task.partition("/")
        task = await self._catalog.task(suite, id)
        past = await asyncio.to_thread(_past, recorded)
        with self._room(task, request.count, logged.who) as tickets:
            made = await Episode.of_past(
                task, self._workbench, past, request.count, request.turn, parent=row.id, group=row.group
            )
            return await self._adopted(made, tickets, _LEASE_S, logged)

    @contextmanager
    def _room(self, task: Task, count: int, who: Principal) -> Iterator[list[Ticket]]:
        """Room for `count` episodes of a task; what `_adopted` has not taken is given back at the block's end."""
        self._catalog.quarantine.check(task.key)
        if len(self._table) + self._opening + count > self._max_episodes:
            text = f"this hub holds at most {self._max_episodes} live episodes"
            raise WireError("too_many_episodes", 429, text, {"retry_after_s": 1.0})
        tickets = self._admission.admit(request_mb(task), count, who.account, len(distinct(task)))
        self._opening += count
        try:
            yield tickets
        finally:
            for ticket in tickets:
                ticket.release()
            self._opening -= count

    async def _adopted(
        self, made: Sequence[Episode], tickets: list[Ticket], lease_s: float, request: _Request
    ) -> bytes:
        """Log open episodes and the answer about them, and hand them to the table; else end them."""
        lives = [
            Live(
                episode=episode,
                lease_s=lease_s,
                expires=0.0,
                mark=self._ledger.claim(episode.id),
                ticket=ticket,
                owner=request.who.name,
            )
            for episode, ticket in zip(made, tickets, strict=True)
        ]
        try:
            opened = [live.opened(live.episode.observation()) for live in lives]
            answer = dumps(EpisodesCreated(group=made[0].group, episodes=opened).model_dump())
            answered = RequestRow(id=request.id, hash=request.hash, answer=answer)
            await self._log.append(*(_row(live) for live in lives), answered)
        except BaseException:
            await asyncio.shield(_cancel(made))
            for live in lives:
                live.mark.release()
            raise
        self._table.adopt(lives)
        tickets.clear()
        return answer

    async def _task(self, request: CreateEpisodes) -> Task:
        if request.task is None:
            return await self._catalog.draw(request.suite, request.split, request.seed or 0)
        task = await self._catalog.task(request.suite, request.task)
        if request.split not in (None, task.split):
            raise WireError("invalid", 422, f"split: task {task.key!r} is of split {task.split!r}")
        return task

    def _make(self, request: CreateEpisodes, task: Task) -> list[Episode]:
        """The episodes of a request, not open yet. Raises UserError for limits above the task's."""
        group = request.group or secrets.token_hex(8)
        return [
            Episode(
                task,
                self._workbench,
                id=new_id(),
                group=group,
                member=request.first_member + position,
                limits=request.limits,
            )
            for position in range(request.count)
        ]

    async def _open_all(self, made: Sequence[Episode]) -> None:
        async def one(episode: Episode) -> None:
            async with self._gate:
                await episode.open()

        try:
            async with asyncio.TaskGroup() as group:
                for episode in made:
                    group.create_task(one(episode))
        except BaseException as error:
            await asyncio.shield(_cancel(made))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise


async def _cancel(made: Sequence[Episode]) -> None:
    await asyncio.gather(*(episode.cancel() for episode in made))


def _past(recorded: bytes) -> Past:
    """The past of an episode from the log. Raises ForkRefused."""
    row = json.loads(recorded)
    return Past.of(decode(Trajectory, row["trajectory"]), row.get("replay"))


def _row(live: Live) -> EpisodeRow:
    """The log's entry for an episode that was opened."""
    episode = live.episode
    return EpisodeRow(
        id=episode.id,
        task=episode.task.key,
        group=episode.group,
        member=episode.member,
        opened=time.time(),
        owner=live.owner,
        lease_s=live.lease_s,
        limits=None if episode.limits == episode.task.limits else dumps(encode(episode.limits)),
        parent=episode.parent,
        fork_turn=episode.fork_turn,
        fork_writes=len(episode.past.writes),
        spent_s=episode.past.seconds if episode.parent else 0.0,
    )


def _request_conflict(request_id: str) -> WireError:
    return WireError("request_conflict", 409, f"request id {request_id!r} was used before with another body")
