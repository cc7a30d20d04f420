"""Opening groups of episodes, each request exactly once.

Owns the idempotence of openings: a request is known by its id and the hash of its body. Either all episodes of a
request are open and logged, or none is left.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

from agenthub.episodes import Episode, Workbench
from agenthub.errors import WireError
from agenthub.log import EpisodeLog, EpisodeRow, RequestRow
from agenthub.server.answers import digest, dumps
from agenthub.server.catalog import Catalog
from agenthub.server.live import Live
from agenthub.server.owner import Job, Owner
from agenthub.server.params import canonical_json
from agenthub.server.table import EpisodeTable
from agenthub.suites.task import Task
from agenthub.wire import CreateEpisodes, EpisodesCreated

__all__ = ["Opener"]

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Opening:
    """A request that opens episodes now."""

    hash: str
    job: Job[bytes]


class Opener:
    """Opens episodes and hands them to the table."""

    def __init__(
        self,
        catalog: Catalog,
        workbench: Workbench,
        log: EpisodeLog,
        owner: Owner,
        table: EpisodeTable,
        *,
        max_episodes: int,
    ) -> None:
        self._catalog, self._workbench, self._log = catalog, workbench, log
        self._owner, self._table, self._max_episodes = owner, table, max_episodes
        self._openings: dict[str, _Opening] = {}
        self._opening = 0
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def create(self, request: CreateEpisodes) -> bytes:
        """Open episodes; the same request id again gives the same answer.

        Raises:
            WireError: 404 unknown suite or task, 409 `request_conflict`, 422 the task cannot be had here, 429
                `too_many_episodes`, 503 `infra_fault`. Nothing is left open in any case.
        """
        hashed = digest(canonical_json(request))
        opening = self._openings.get(request.request_id)
        if opening is None:
            opening = _Opening(hashed, self._owner.start(self._create(request, hashed)))
            self._openings[request.request_id] = opening
        elif opening.hash != hashed:
            raise _request_conflict(request.request_id)
        return await opening.job.join()

    async def _create(self, request: CreateEpisodes, hashed: str) -> bytes:
        try:
            known = await self._log.request(request.request_id)
            if known is not None:
                if known.hash != hashed:
                    raise _request_conflict(request.request_id)
                return known.answer
            return await self._open_group(request, hashed)
        finally:
            self._openings.pop(request.request_id, None)

    async def _open_group(self, request: CreateEpisodes, hashed: str) -> bytes:
        made = self._make(request, await self._task(request))
        if len(self._table) + self._opening + request.count > self._max_episodes:
            raise WireError("too_many_episodes", 429, f"this hub holds at most {self._max_episodes} live episodes")
        self._opening += request.count
        try:
            observations = await self._open_all(made)
            opened = [live.opened(shown) for live, shown in zip(made, observations, strict=True)]
            answer = dumps(EpisodesCreated(group=made[0].episode.group, episodes=opened).model_dump())
            answered = RequestRow(id=request.request_id, hash=hashed, answer=answer)
            await self._log.append(*(_row(live) for live in made), answered)
        except BaseException:
            await asyncio.shield(asyncio.gather(*(live.episode.cancel() for live in made)))
            raise
        finally:
            self._opening -= request.count
        self._table.adopt(made)
        return answer

    async def _task(self, request: CreateEpisodes) -> Task:
        if request.task is None:
            return await self._catalog.draw(request.suite, request.split, request.seed or 0)
        task = await self._catalog.task(request.suite, request.task)
        if request.split not in (None, task.split):
            raise WireError("invalid", 422, f"split: task {task.key!r} is of split {task.split!r}")
        return task

    def _make(self, request: CreateEpisodes, task: Task) -> list[Live]:
        """The episodes of a request, not open yet. Raises UserError for limits above the task's."""
        group = request.group or secrets.token_hex(8)
        return [
            Live(
                episode=Episode(
                    task,
                    self._workbench,
                    id=f"ep-{secrets.token_hex(12)}",
                    group=group,
                    member=request.first_member + position,
                    limits=request.limits,
                ),
                lease_s=request.lease_s,
                expires=0.0,
            )
            for position in range(request.count)
        ]

    async def _open_all(self, made: list[Live]) -> list[dict[str, object]]:
        async def one(live: Live) -> dict[str, object]:
            async with self._gate:
                return await live.episode.open()

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(live)) for live in made]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]


def _row(live: Live) -> EpisodeRow:
    episode = live.episode
    return EpisodeRow(
        id=episode.id, task=episode.task.key, group=episode.group, member=episode.member, opened=time.time()
    )


def _request_conflict(request_id: str) -> WireError:
    return WireError("request_conflict", 409, f"request id {request_id!r} was used before with another body")
