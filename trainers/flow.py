"""How trajectories reach the updates: batch after batch, or groups that are played while the learner works.

Both are one rule with another bound: a batch is started only while fewer than `version + bound + 1` have been.
At bound 0 that is one batch at a time, each under the newest weights. What has been started goes on under new weights,
whatever its length, and an update takes the groups that ended first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agenthub.errors import UserError
from agenthub.records import Trajectory
from agenthub.rollout import CollectStats, Play
from agenthub.trainers.integrity import check_tokens
from agenthub.trainers.ledger import Ledger, Started
from agenthub.trainers.samplers import Sampler

__all__ = ["Collects", "Flow"]


class Collects(Protocol):
    """`rollout.Collector`, or a fake."""

    stats: CollectStats

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """One trajectory for each member of each play."""


class Flow:
    """Starts groups, queues those that end, and hands an update its own."""

    def __init__(
        self,
        collector: Callable[[], Collects],
        sampler: Sampler,
        ledger: Ledger,
        *,
        suite: str,
        groups: int,
        group_size: int,
        seed: int,
        bound: int = 0,
        serving: Callable[[], int] | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        """
        Args:
            collector: makes one for each call, since several run at once.
            groups: of one update. bound: batches ahead of the weights; 0 plays and trains in turn.
            serving: version of the weights that serve now; None takes what `advance` was told last.
            decode: text of ids, for messages.
        """
        self._collector, self._sampler, self._ledger = collector, sampler, ledger
        self._suite, self._groups, self._size, self._seed = suite, groups, group_size, seed
        self._bound, self._decode, self._serving = bound, decode, serving
        self._running: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._failed: BaseException | None = None
        self._closing = False
        self._version = 0
        self.started = 0
        """Batches that have been started, and that the sampler has drawn for."""
        self.stats = CollectStats()
        """What the rollouts cost since the last `next`; groups that are still played count when they end."""
        self.waited_s = 0.0
        """Seconds of the last `next`: the learner was idle."""

    def begin(self, done: int, started: int) -> None:
        """Go on after `done` updates, where the sampler has drawn for `started` batches. Must come first.

        Raises:
            UserError: the ledger does not know these batches: it belongs to another run.
        """
        self._version, self.started = done, started
        self._ledger.rewind(done)
        if self._bound == 0:
            self._ledger.drop_batches(done + 1)
            return
        if self._ledger.batches() < started:
            raise UserError(
                f"the ledger knows {self._ledger.batches()} batches, the checkpoint was written after {started}"
            )
        self._keep_batches()
        for row in self._ledger.unfinished():
            self._play([row])

    def _keep_batches(self) -> None:
        """Keep the batches that the sampler would draw again, and forget the ones after the first it would not."""
        for batch in range(self.started + 1, self._ledger.batches() + 1):
            rows = self._ledger.batch(batch)
            before = self._sampler.state_dict()
            if self._sampler.next(self._groups) != [row.task for row in rows]:
                self._sampler.load_state_dict(before)
                self._ledger.drop_batches(batch)
                return
            self.started = batch

    async def next(self, update: int) -> list[Trajectory]:
        """The trajectories of an update, as soon as enough groups have ended.

        Raises:
            HostFault, HubUnreachable, WireError: as the collector raises them; or a token cannot be what was sampled.
        """
        begun = time.perf_counter()
        self.stats = CollectStats()
        self._start_due()
        while self._ledger.ready() < self._groups:
            if self._failed is not None:
                raise self._failed
            self._news.clear()
            await self._news.wait()
        self.waited_s = time.perf_counter() - begun
        return self._ledger.take(update, self._groups)

    def advance(self, version: int) -> None:
        """New weights serve: more may be started. At bound 0 that waits for `next`, so that evaluations are alone."""
        self._version = version
        if self._bound:
            self._start_due()

    async def close(self) -> None:
        """End what is played; the ledger keeps what has ended."""
        self._closing = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._ledger.close()

    def covered(self, done: int) -> None:
        """A checkpoint holds the updates up to `done`."""
        self._ledger.covered(done)

    def _start_due(self) -> None:
        while self.started < self._version + self._bound + 1:
            rows = self._ledger.open_batch(self.started + 1, self._sampler.next(self._groups))
            self.started += 1
            if self._bound == 0:
                # One call for all: a policy in this process samples them together.
                self._play(rows)
            else:
                for row in rows:
                    self._play([row])

    def _play(self, rows: Sequence[Started]) -> None:
        task = asyncio.get_running_loop().create_task(self._collect(rows))
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def _collect(self, rows: Sequence[Started]) -> None:
        collector = self._collector()
        plays = [
            Play(suite=self._suite, task=row.task, count=self._size, group=row.name, update=row.batch) for row in rows
        ]
        trajectories = await collector.collect(plays, seed=self._seed)
        for trajectory in trajectories:
            check_tokens(trajectory, version=self._serving() if self._serving else self._version, decode=self._decode)
        for row in rows:
            self._ledger.finish(row.name, [one for one in trajectories if one.group == row.name])
        self.stats.add(collector.stats)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            self._failed = self._failed or (None if self._closing else asyncio.CancelledError())
        elif task.exception() is not None:
            self._failed = self._failed or task.exception()
        self._news.set()
