"""What each operation of the hub does with its parameters, by name; `steps` is the dispatcher's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel

from agenthub.blobs import BlobStore
from agenthub.episodes import Workbench
from agenthub.server import params
from agenthub.server.access import Principal
from agenthub.server.admission import Admission
from agenthub.server.answers import OCTETS, Answer, dumps
from agenthub.server.catalog import Catalog
from agenthub.server.opening import Opener
from agenthub.server.table import EpisodeTable
from agenthub.wire import Batch, CreateEpisodes, StepOf

__all__ = ["OPERATIONS", "Operations"]

PROTOCOL = 1
OPERATIONS: Mapping[str, type[BaseModel]] = {
    "capabilities": params.Nothing,
    "suites": params.Nothing,
    "suite": params.SuiteRef,
    "tasks": params.TaskPage,
    "create": CreateEpisodes,
    "step": StepOf,
    "steps": Batch,
    "lease": params.LeaseOf,
    "state": params.EpisodeRef,
    "trajectory": params.EpisodeRef,
    "delete": params.EpisodeRef,
    "fork": params.ForkOf,
    "file_get": params.FileRef,
    "file_put": params.FilePut,
    "blob_get": params.BlobRef,
    "blob_put": params.BlobPut,
    "quarantine": params.Nothing,
    "release": params.TaskRef,
}


class Operations:
    """The operations, to be called with read parameters by whoever may.

    Args:
        must_run: raises WireError where the hub takes no new work.
        must_own: raises WireError where an episode is not there, or is somebody else's.
        step: plays one step; raises as `EpisodeTable.step` does.
    """

    def __init__(
        self,
        catalog: Catalog,
        workbench: Workbench,
        table: EpisodeTable,
        opener: Opener,
        admission: Admission,
        blobs: BlobStore,
        *,
        max_episodes: int,
        must_run: Callable[[], None],
        must_own: Callable[[str, Principal], Awaitable[None]],
        step: Callable[[StepOf, Principal], Awaitable[bytes]],
    ) -> None:
        self._catalog, self._workbench, self._table, self._opener = catalog, workbench, table, opener
        self._admission, self._blobs, self._max_episodes = admission, blobs, max_episodes
        self._must_run, self._must_own, self._play = must_run, must_own, step
        self.by_name: Mapping[str, Callable[[Any, Principal], Awaitable[Answer]]] = {
            "capabilities": self._capabilities,
            "suites": self._suites,
            "suite": self._suite,
            "tasks": self._tasks,
            "create": self._create,
            "step": self._step,
            "lease": self._lease,
            "state": self._state,
            "trajectory": self._trajectory,
            "delete": self._delete,
            "fork": self._fork,
            "file_get": self._file_get,
            "file_put": self._file_put,
            "blob_get": self._blob_get,
            "blob_put": self._blob_put,
            "quarantine": self._quarantine,
            "release": self._release,
        }

    async def _capabilities(self, asked: params.Nothing, who: Principal) -> Answer:
        from agenthub import __version__

        facts = {
            "version": __version__,
            "protocol": PROTOCOL,
            "operations": sorted(OPERATIONS),
            "isolation": self._workbench.isolation,
            "sandboxes": self._workbench.capabilities(),
            "max_episodes": self._max_episodes,
            "live_episodes": len(self._table),
            "memory_mb": {"budget": self._admission.budget_mb, "requested": self._admission.held_mb},
        }
        return Answer(dumps(facts))

    async def _suites(self, asked: params.Nothing, who: Principal) -> Answer:
        return Answer(dumps(await self._catalog.list()))

    async def _suite(self, asked: params.SuiteRef, who: Principal) -> Answer:
        return Answer(dumps(await self._catalog.describe(asked.suite)))

    async def _tasks(self, asked: params.TaskPage, who: Principal) -> Answer:
        return Answer(dumps(await self._catalog.page(asked)))

    async def _create(self, asked: CreateEpisodes, who: Principal) -> Answer:
        self._must_run()
        return Answer(await self._opener.create(asked, who), 201)

    async def _step(self, asked: StepOf, who: Principal) -> Answer:
        return Answer(await self._play(asked, who))

    async def _lease(self, asked: params.LeaseOf, who: Principal) -> Answer:
        await self._must_own(asked.episode, who)
        return Answer(await self._table.lease(asked.episode, asked.lease_s))

    async def _state(self, asked: params.EpisodeRef, who: Principal) -> Answer:
        await self._must_own(asked.episode, who)
        return Answer(await self._table.state(asked.episode))

    async def _trajectory(self, asked: params.EpisodeRef, who: Principal) -> Answer:
        await self._must_own(asked.episode, who)
        return Answer(await self._table.trajectory(asked.episode))

    async def _delete(self, asked: params.EpisodeRef, who: Principal) -> Answer:
        await self._must_own(asked.episode, who)
        return Answer(await self._table.delete(asked.episode))

    async def _fork(self, asked: params.ForkOf, who: Principal) -> Answer:
        self._must_run()
        await self._must_own(asked.episode, who)
        return Answer(await self._opener.fork(asked, who), 201)

    async def _file_get(self, asked: params.FileRef, who: Principal) -> Answer:
        await self._must_own(asked.episode, who)
        return Answer(await self._table.using(asked.episode, lambda it: it.read_file(asked.path)), 200, OCTETS)

    async def _file_put(self, asked: params.FilePut, who: Principal) -> Answer:
        await self._must_own(asked.episode, who)

        await self._table.write(asked.episode, asked.path, asked.data)
        return Answer(dumps({"path": asked.path, "bytes": len(asked.data)}))

    async def _blob_get(self, asked: params.BlobRef, who: Principal) -> Answer:
        return Answer(await asyncio.to_thread(self._blobs.get, asked.sha256), 200, OCTETS)

    async def _blob_put(self, asked: params.BlobPut, who: Principal) -> Answer:
        await asyncio.to_thread(self._blobs.put, asked.sha256, asked.data)
        return Answer(dumps({"sha256": asked.sha256, "bytes": len(asked.data)}), 201)

    async def _quarantine(self, asked: params.Nothing, who: Principal) -> Answer:
        return Answer(dumps({"tasks": self._catalog.quarantine.rows()}))

    async def _release(self, asked: params.TaskRef, who: Principal) -> Answer:
        return Answer(dumps(self._catalog.quarantine.release(f"{asked.suite}/{asked.task}")))
