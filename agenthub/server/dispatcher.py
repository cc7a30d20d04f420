"""The dispatcher: every operation of the hub by name, without a transport.

The three faces (routes, WebSocket, NDJSON) parse a request into one of the operation's model, call `dispatch` or
`steps`, and send what comes back. Whoever runs it enters it as an asynchronous context: it owns the tasks of running
steps, the reaper, the sandboxes and the log, and ends them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any

from agenthub.blobs import BlobStore
from agenthub.episodes import Workbench
from agenthub.errors import WireError, nearest
from agenthub.log import EpisodeLog
from agenthub.server import params
from agenthub.server.access import OPERATION_SCOPES, Principal, need
from agenthub.server.admission import Admission, default_budget_mb
from agenthub.server.answers import Answer
from agenthub.server.batches import lines_of
from agenthub.server.catalog import Catalog
from agenthub.server.journal import Journal
from agenthub.server.metrics import Metrics
from agenthub.server.opening import Opener
from agenthub.server.operations import OPERATIONS, Operations
from agenthub.server.owner import Owner, stopping
from agenthub.server.quotas import Accounts
from agenthub.server.recovery import Recovery
from agenthub.server.table import EpisodeTable, unknown_episode
from agenthub.wire import Batch, StepOf

__all__ = ["Dispatcher"]

_logger = logging.getLogger("agenthub.server")


class Dispatcher:
    """One hub's operations.

    `memory_mb` is what its boxes may ask for together; None is 80% of what there is. With a `grace_s` above 0 it goes
    on with the episodes that a killed hub left in the log, and they with theirs should it be killed.
    """

    def __init__(
        self,
        catalog: Catalog,
        workbench: Workbench,
        log: EpisodeLog,
        blobs: Path,
        *,
        max_episodes: int = 8192,
        memory_mb: int | None = None,
        stop_s: float = 0.8,
        grace_s: float = 0.0,
    ) -> None:
        self.accounts = Accounts()
        self.metrics = Metrics(self.accounts)
        self.journal = Journal(self.metrics)
        self.catalog = catalog
        self._workbench, self._log, self._blobs = workbench, log, BlobStore(blobs)
        workbench.blobs = self._blobs
        self._stop_s = stop_s
        self._owner = Owner()
        self.admission = Admission(memory_mb or default_budget_mb())
        recovery = Recovery(catalog, workbench, log, self.admission, self.accounts, self.metrics, grace_s=grace_s)
        self._ledger = recovery.ledger
        self.table = EpisodeTable(log, self._owner, self.metrics, catalog.quarantine, recovery)
        self._opener = Opener(
            catalog, workbench, log, self._owner, self.table, self.admission, self._ledger, max_episodes=max_episodes
        )
        self.metrics.gauge("episodes_live", "Episodes that are live.", lambda: len(self.table))
        held = "MiB that the boxes of live episodes asked for."
        self.metrics.gauge("memory_requested_mb", held, lambda: self.admission.held_mb)
        self.metrics.gauge("boxes_warm", "Boxes that wait in pools.", lambda: workbench.warm)
        self.metrics.gauge("tasks_quarantined", "Tasks in quarantine.", lambda: len(catalog.quarantine))
        self._stack = AsyncExitStack()
        self._stopping = self._untouched = False
        self._waiting: set[asyncio.Task[None]] = set()
        """Of steps whose answers take a while."""
        self._operations = Operations(
            catalog,
            workbench,
            self.table,
            self._opener,
            self.admission,
            self._blobs,
            max_episodes=max_episodes,
            must_run=self._must_run,
            must_own=self._own,
            step=self._played,
        )

    @property
    def ready(self) -> bool:
        """True while episodes can be opened and stepped."""
        return not self._stopping

    @property
    def workbench(self) -> Workbench:
        """The sandboxes of this hub."""
        return self._workbench

    async def __aenter__(self) -> Dispatcher:
        await self._log.open()
        self._stack.push_async_callback(self._log.close)
        self._stack.callback(self._ledger.close)
        self._stack.push_async_callback(self._close_sandboxes)
        await self._stack.enter_async_context(self._owner)
        self._untouched = True
        try:
            await self.table.recover()
        except BaseException:
            await asyncio.shield(self._stack.aclose())
            raise
        self._untouched = len(self.table) > 0
        self._reaper = self._owner.start(self.table.reap())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every episode within `stop_s`, then the sandboxes that are left, then the log."""
        self.stop()
        await self._reaper.cancel()
        if kind is None:
            self.serves()
        try:
            async with asyncio.timeout(self._stop_s / 2):
                if not self._untouched:
                    await self.table.close()
        except TimeoutError:
            _logger.warning("%d episodes had no time to end: their sandboxes are killed", len(self.table))
        await self._stack.__aexit__(kind, error, trace)

    async def _close_sandboxes(self) -> None:
        if not self._untouched:
            await self._workbench.close()

    def serves(self) -> None:
        """Requests come in from now on. A hub that fails before, say by a port that is in use, leaves what a killed one
        left for the next: nobody has asked for any of it yet."""
        self._untouched = False

    def stop(self) -> None:
        """Refuse new work from now on; leaving the context ends what runs."""
        self._stopping = True

    async def dispatch(self, name: str, values: Any, who: Principal) -> Answer:
        """Run one operation on the JSON values of its parameters, for whoever asks.

        Raises:
            WireError: whatever went wrong; nothing else is raised but cancellation. 403 `forbidden`: not with this
                token; an episode of somebody else's is as unknown (404) as one that never was.
        """
        operation = self._operations.by_name.get(name)

        async def work() -> Answer:
            if operation is None:
                raise WireError("unknown_op", 404, f"no operation named {name[:80]!r}{nearest(name, OPERATIONS)}")
            need(who, OPERATION_SCOPES[name])
            return await operation(params.read(OPERATIONS[name], values), who)

        return await self.journal.watch(name, values, who, work)

    def read_step(self, values: Any, who: Principal) -> StepOf:
        """A step from the JSON values of its parameters. Raises WireError, counted and logged."""
        started = time.perf_counter()
        try:
            need(who, OPERATION_SCOPES["step"])
            return params.read(StepOf, values)
        except WireError as error:
            raise self.journal.refused("step", values, who, started, error) from None

    def step(self, step: StepOf, who: Principal, then: Callable[[bytes | WireError], None]) -> None:
        """Play one step and call `then` with the answer, now or later; it is played whatever becomes of who asked."""
        started = time.perf_counter()
        about = {"episode": step.episode, "turn": step.turn}

        def answered(answer: bytes | WireError) -> None:
            if isinstance(answer, WireError):
                then(self.journal.refused("step", about, who, started, answer))
            else:
                self.journal.answered("step", about, who, started)
                then(answer)

        counted = False
        try:
            # What is refused, or has to be waited for, goes the long way and is refused there.
            if not self._stopping and self.journal.tracing is None and self._owns(step.episode, who):
                who.account.step()
                counted = True
                if self.table.begin(step, answered):
                    return
        except Exception as error:  # the boundary
            then(self.journal.refused("step", about, who, started, error))
            return
        waiting = asyncio.ensure_future(self._wait(step, who, about, then, counted))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _wait(
        self,
        step: StepOf,
        who: Principal,
        about: dict[str, Any],
        then: Callable[[bytes | WireError], None],
        counted: bool,
    ) -> None:
        try:
            answer: bytes | WireError
            answer = await self.journal.watch("step", about, who, lambda: self._played(step, who, counted=counted))
        except WireError as refused:
            answer = refused
        then(answer)

    async def steps(self, values: Any, who: Principal) -> AsyncGenerator[list[bytes], None]:
        """Play a batch: lines of JSON as steps finish, `late` ones at the deadline; late steps go on.

        Raises:
            WireError: the batch itself is not valid; errors of single steps are lines.
        """

        async def read() -> Batch:
            need(who, OPERATION_SCOPES["steps"])
            return params.read(Batch, values)

        batch = await self.journal.watch("steps", values, who, read)
        async with aclosing(lines_of(batch, lambda step, then: self.step(step, who, then))) as lines:
            async for ready in lines:
                yield ready

    async def _played(self, step: StepOf, who: Principal, *, counted: bool = False) -> bytes:
        """A step; `counted` where its token's account has it already."""
        self._must_run()
        if not who.admin:
            await self._own(step.episode, who)
        if not counted:
            who.account.step()
        return await self.table.step(step)

    def _owns(self, episode: str, who: Principal) -> bool:
        return who.admin or self.table.owner_of(episode) == who.name

    async def _own(self, episode: str, who: Principal) -> None:
        """
        Raises:
            WireError: 404: there is no such episode, or it is somebody else's; nothing tells the two apart.
        """
        if self._owns(episode, who):
            return
        # Asked of the log in both cases, so that the time taken tells nothing either.
        row = await self._log.episode(episode)
        if row is None or row.owner != who.name:
            raise unknown_episode(episode)

    def _must_run(self) -> None:
        if self._stopping:
            raise stopping()
