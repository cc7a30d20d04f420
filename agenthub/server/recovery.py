"""Going on after a kill: the episodes that the log says have not ended, as they were after their last logged step.

An episode is read from the log when it is first asked for, and has its sandboxes again when they are first used: the
same ones where they were kept and are in the logged state, else fresh ones in which its calls were made again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenthub.codec import decode
from agenthub.episodes import Episode, Past, Workbench
from agenthub.episodes.boxes import distinct, episode_of
from agenthub.episodes.past import FileWrite, Step
from agenthub.episodes.reading import generation_of
from agenthub.episodes.regaining import Way
from agenthub.errors import AgenthubError, HostFault, UserError, WireError
from agenthub.log import EpisodeLog, EpisodeRow, StepRow
from agenthub.records import Turn
from agenthub.server.admission import Admission, Ticket, request_mb
from agenthub.server.catalog import Catalog
from agenthub.server.ledger import Ledger, Mark
from agenthub.server.live import Live
from agenthub.server.metrics import Metrics
from agenthub.server.quotas import Accounts
from agenthub.suites.task import Task, TaskLimits
from agenthub.wire import GenerationIn

__all__ = ["Left", "Recovery"]

_logger = logging.getLogger("agenthub.server")
_AT_ONCE = 16
"""Episodes that have their sandboxes again at once."""


@dataclass(slots=True, kw_only=True)
class Left:
    """An episode of a killed hub that nobody has asked for yet."""

    row: EpisodeRow
    task: Task
    kept: bool
    """Its sandboxes, as far as they were kept, are in the state that the log says."""
    expires: float
    """Time of the loop's clock."""
    ticket: Ticket
    mark: Mark


class Recovery:
    """Finds what a killed hub left."""

    def __init__(
        self,
        catalog: Catalog,
        workbench: Workbench,
        log: EpisodeLog,
        admission: Admission,
        accounts: Accounts,
        metrics: Metrics,
        *,
        grace_s: float,
    ) -> None:
        """`grace_s` of 0: what a killed hub left is lost."""
        self._catalog, self._workbench, self._log = catalog, workbench, log
        self._admission, self._accounts, self._metrics = admission, accounts, metrics
        self._grace_s = grace_s
        self.ledger = Ledger(_beside(log.path) if grace_s > 0 else None)
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def begin(self) -> dict[str, Left]:
        """What was left, by id; leases begin anew, and what is kept for others ends. The log is open.

        Raises:
            HostFault: the log cannot be read, or the ledger cannot be written.
        """
        try:
            begun = self.ledger.open()
        except OSError as error:
            raise HostFault(f"the ledger beside {self._log.path} cannot be written: {error}") from error
        if self._grace_s <= 0:
            return {}
        left: dict[str, Left] = {}
        for row, done in await self._log.running():
            task = await self._task(row)
            if task is None:
                continue
            account = self._accounts.of(row.owner)
            left[row.id] = Left(
                row=row,
                task=task,
                kept=begun.get(row.id) == done,
                expires=asyncio.get_running_loop().time() + max(row.lease_s, self._grace_s),
                ticket=Ticket(self._admission, request_mb(task), account, len(distinct(task))),
                mark=self.ledger.claim(row.id, done),
            )
        await self._attach(left)
        return left

    async def _task(self, row: EpisodeRow) -> Task | None:
        suite, _, id = row.task.partition("/")
        try:
            return await self._catalog.task(suite, id)
        except (UserError, WireError) as gone:
            _logger.warning("episode %s cannot go on: %s", row.id, gone)
            return None

    async def _attach(self, left: dict[str, Left]) -> None:
        """Open every kind of sandbox that is needed: opening it takes over what was kept, which does not wait long."""

        def wanted(label: str) -> bool:
            found = left.get(episode_of(label))
            return found is not None and found.kept

        self._workbench.want(wanted)
        for uses in sorted({use.uses for it in left.values() for use in it.task.tools}):
            try:
                await self._workbench.factory(uses)
            except AgenthubError as error:
                _logger.warning("sandbox %s: %s", uses, error)
        if left:
            _logger.warning("a hub was killed: going on with %d episodes", len(left))

    async def read(self, left: Left) -> Live:
        """An episode as it was after its last logged step, without its sandboxes.

        Raises:
            HostFault: the log cannot be read.
        """
        row = left.row
        steps, writes = await self._past(row)
        own = [step for step in steps if step.episode == row.id]
        limits = left.task.limits if row.limits is None else decode(TaskLimits, json.loads(row.limits))
        past = Past(
            steps=tuple(map(_step, steps)),
            writes=tuple(writes),
            limits=limits,
            seconds=max(row.spent_s, steps[-1].at_s if steps else 0.0),
        )
        episode = Episode.left(
            left.task, self._workbench, past, id=row.id, group=row.group, member=row.member, parent=row.parent
        )
        episode.fork_turn = row.fork_turn
        return Live(
            episode=episode,
            lease_s=row.lease_s,
            expires=left.expires,
            owner=row.owner,
            last=own[-1] if own else None,
            ticket=left.ticket,
            mark=left.mark,
            kept=left.kept,
        )

    async def _past(self, row: EpisodeRow) -> tuple[list[StepRow], list[FileWrite]]:
        """Steps and files of an episode, its parents' before its own."""
        steps: list[StepRow] = []
        writes: list[FileWrite] = []
        if row.parent is not None and row.fork_turn is not None:
            parent = await self._log.episode(row.parent)
            if parent is None:
                raise HostFault(f"the log does not know {row.parent}, which {row.id} is a copy of")
            steps, writes = await self._past(parent)
            steps, writes = steps[: row.fork_turn], writes[: row.fork_writes]
        steps += await self._log.steps(row.id, 1 << 62)
        writes += [FileWrite(turn=it.turn, path=it.path, data=it.data) for it in await self._log.writes(row.id)]
        return steps, writes

    async def wake(self, live: Live) -> None:
        """Have an episode's sandboxes again; counted by how."""
        async with self._at_once:
            live.mark.begin()
            way = await live.episode.resume(kept=live.kept)
        if way is None:
            live.mark.spoil()
        else:
            live.mark.undone()
        if way is not Way.ATTACHED:
            self.let_go(live)
        self._metrics.count("recovered", way="lost" if way is None else way.value)

    def let_go(self, live: Live) -> None:
        """End what is still kept of an episode's sandboxes."""
        if live.kept:
            self._workbench.forsake(lambda label: episode_of(label) != live.episode.id)


def _beside(log: Path) -> Path:
    return log.with_name(f"{log.name}.begun")


def _step(row: StepRow) -> Step:
    """A turn as the log has it: the answer says what came of it, the request what was asked."""
    body: dict[str, Any] = json.loads(row.body)
    answer: dict[str, Any] = json.loads(row.answer)
    info = answer["info"]
    turn: Turn = decode(
        Turn,
        {
            "index": row.turn,
            "generation": None,
            "text": info["text"],
            "calls": info["calls"],
            "answer": info["answer"],
            "parse_error": info["parse_error"],
            "observations": answer["observation"]["observations"],
            "rewards": answer["rewards"],
            "seconds": row.seconds,
        },
    )
    told = body.get("generation")
    if told is not None:
        turn = dataclasses.replace(turn, generation=generation_of(GenerationIn.model_validate(told)))
    return Step(turn=turn, timeout_s=body.get("timeout_s"), at_s=row.at_s, restored=row.restored)
