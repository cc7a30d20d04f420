"""The live episodes of a hub: steps, leases and ends, each request exactly once.

Owns the idempotence of steps: one is known by its turn and the hash of its body; what was answered is in the log, and
leaves after its commit. An episode leaves this table when its end is in the log: from then on every answer about it
comes from there, as it does after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from agenthub.episodes import Episode
from agenthub.errors import AgenthubError, UserError, WireError
from agenthub.log import EpisodeLog, EpisodeRow, StepRow, WriteRow
from agenthub.records import Outcome, Trajectory
from agenthub.server.answers import digest, dumps
from agenthub.server.live import Live, end_row, turn_conflict, turn_order
from agenthub.server.metrics import Metrics
from agenthub.server.owner import Job, Owner
from agenthub.server.params import canonical_json
from agenthub.server.quarantine import Quarantine
from agenthub.server.recovery import Left, Recovery
from agenthub.server.stepping import Stepping
from agenthub.wire import StepOf

__all__ = ["EpisodeTable", "unknown_episode"]

_logger = logging.getLogger("agenthub.server")
_REAP_EVERY_S = 0.5


class EpisodeTable:
    """Live episodes by id."""

    def __init__(
        self, log: EpisodeLog, owner: Owner, metrics: Metrics, quarantine: Quarantine, recovery: Recovery
    ) -> None:
        self._log, self._owner, self._metrics, self._quarantine = log, owner, metrics, quarantine
        self._recovery = recovery
        self._live: dict[str, Live] = {}
        self._left: dict[str, Left] = {}
        """Of a killed hub, and not asked for yet."""
        self._reading: dict[str, Job[None]] = {}
        self._stepping = Stepping(log, owner, metrics, recovery, spoilt=self._spoilt, forget=self._forget)

    def __len__(self) -> int:
        return len(self._live) + len(self._left)

    async def recover(self) -> None:
        """Go on with the episodes of a killed hub. Raises HostFault."""
        self._left = await self._recovery.begin()

    async def _found(self, id: str) -> Live | None:
        """A live episode; one that a killed hub left is read from the log first. Raises HostFault."""
        if id in self._left:
            if id not in self._reading or self._reading[id].failed:
                self._reading[id] = self._owner.start(self._read(id))
            await self._reading[id].join()
        return self._live.get(id)

    async def _read(self, id: str) -> None:
        left = self._left[id]
        try:
            self._live[id] = await self._recovery.read(left)
        except (KeyError, ValueError, WireError):
            # Not written by this version, or not by us: nobody can go on with it.
            _logger.exception("episode %s cannot be read back", id)
            left.mark.release()
            left.ticket.release()
        del self._left[id], self._reading[id]

    @asynccontextmanager
    async def _alone(self, live: Live) -> AsyncIterator[None]:
        """The sandboxes of an episode to oneself, and there again where its hub was killed."""
        async with live.files:
            if live.episode.asleep:
                await self._recovery.wake(live)
            yield

    def adopt(self, opened: Sequence[Live]) -> None:
        """Take over episodes that were opened and logged; their leases begin."""
        for live in opened:
            live.renew()
            self._live[live.episode.id] = live
        self._metrics.count("episodes_opened", len(opened))

    async def step(self, request: StepOf) -> bytes:
        """Play one turn; the same turn and body again gives the same answer, and joins one in progress.

        Raises:
            WireError: 404, 409 `turn_conflict` or `turn_order`, 410 `episode_done` or `episode_lost`, 422 for facts
                about tokens that do not fit, 503 `infra_fault` where the answer could not be logged: send it again.
        """
        body = canonical_json(request)
        hashed = digest(body)
        live = self._live.get(request.episode) or await self._found(request.episode)
        if live is None:
            return await self._step_of_ended(request, hashed)
        live.renew()
        pending = live.pending
        if pending is not None and pending.turn == request.turn:
            if pending.hash != hashed:
                raise turn_conflict(request.episode, request.turn)
            if pending.failed:
                self._stepping.again(live, pending, request)
        elif request.turn < live.episode.next_turn and (pending is None or request.turn < pending.turn):
            return await self._answered(live, request, hashed)
        elif live.ending is not None or live.episode.done:
            raise _done(request.episode)
        elif pending is not None or request.turn != live.episode.next_turn:
            raise turn_order(request.episode, request.turn, pending.turn if pending else live.episode.next_turn)
        else:
            pending = self._stepping.start(live, request, body, hashed)
        return await pending.join()

    def begin(self, request: StepOf, then: Callable[[bytes | WireError], None]) -> bool:
        """`step`, where it is the next one of a live episode: `then` is called with the answer after its commit.

        False where it is not, or nobody can say yet; nothing has happened then, and `then` is not called. Nearly every
        step of a hub under load comes this way, and where no sandbox takes its time, without a task.

        Raises:
            WireError: as `step` does for facts about tokens that do not fit.
        """
        live = self._live.get(request.episode)
        if live is None or live.pending is not None or live.ending is not None or live.episode.done:
            return False
        if request.turn != live.episode.next_turn:
            return False
        body = canonical_json(request)
        live.renew()
        if live.files.locked() or not self._stepping.now(live, request, body, then):
            pending = self._stepping.start(live, request, body, digest(body))
            pending.then(then)
        return True

    async def _answered(self, live: Live, request: StepOf, hashed: str) -> bytes:
        last = live.last
        if last is None or last.turn != request.turn:
            last = await self._log.step(request.episode, request.turn)
        if last is None or last.hash != hashed:
            raise turn_conflict(request.episode, request.turn)
        return last.answer

    async def _step_of_ended(self, request: StepOf, hashed: str) -> bytes:
        row = await self._row(request.episode)
        answered = await self._log.step(request.episode, request.turn)
        if answered is not None:
            if answered.hash != hashed:
                raise turn_conflict(request.episode, request.turn)
            return answered.answer
        raise _done(request.episode) if row.state is not None else _lost(request.episode)

    async def lease(self, id: str, lease_s: float) -> bytes:
        """Begin an episode's lease anew. Raises WireError 404, 410."""
        live = self._live.get(id) or await self._found(id)
        if live is None or live.ending is not None:
            row = await self._row(id)
            raise _done(id) if row.state is not None or live is not None else _lost(id)
        return dumps({"episode": id, "lease_expires_s": live.renew(lease_s)})

    async def state(self, id: str) -> bytes:
        """`wire.EpisodeState`, from the log where the episode has ended. Raises WireError 404, 410 `episode_lost`."""
        live = await self._found(id)
        if live is not None:
            return dumps(dict(live.state()))
        row = await self._row(id)
        if row.state is None:
            raise _lost(id)
        return row.state

    async def trajectory(self, id: str) -> bytes:
        """`{"id", "hash", "trajectory"}` of a finished episode.

        Raises:
            WireError: 404, 409 `episode_running`, 410 `episode_lost`.
        """
        live = await self._found(id)
        if live is not None and live.pending is None and live.ending is None:
            raise WireError(
                "episode_running", 409, f"episode {id} has not ended: its next turn is {live.episode.next_turn}"
            )
        found = await self._log.trajectory(id)
        if found is None:
            row = await self._row(id)
            raise WireError("episode_running", 409, f"episode {row.id} has not ended") if live else _lost(id)
        return found

    async def delete(self, id: str) -> bytes:
        """End an episode and give its last state; one that has ended gives the same. Raises WireError 404, 410."""
        live = await self._found(id)
        if live is None:
            return await self.state(id)
        if live.ending is None or live.ending.failed:
            live.ending = self._owner.start(self._end(live))
        return await live.ending.join()

    def _spoilt(self, live: Live) -> None:
        live.ending = live.ending or self._owner.start(self._end(live))

    async def _end(self, live: Live) -> bytes:
        """Cancel the episode (and the step in progress, unless it was played), log its end and forget it."""
        pending = live.pending
        if pending is not None and pending.job is not None and not pending.entries:
            await pending.job.cancel(_done(live.episode.id))
            live.pending = pending = None
        elif pending is not None and not pending.failed:
            with suppress(WireError):
                await pending.join()
        if live.episode.id not in self._live:
            return await self.state(live.episode.id)
        async with live.files:
            if live.episode.asleep:
                self._recovery.let_go(live)
            end = await live.episode.cancel()
        live.release()
        rows = live.pending.entries if live.pending else ()
        rows = [row for row in rows if isinstance(row, StepRow)]
        ended = end_row(live, end)
        await self._log.append(*rows, ended)
        self._forget(live, end)
        return ended.state

    def owner_of(self, id: str) -> str | None:
        """Who opened a live episode; None where none of that id is live."""
        live = self._live.get(id)
        if live is None and id in self._left:
            return self._left[id].row.owner
        return None if live is None else live.owner

    async def get(self, id: str) -> Live | None:
        """A live episode that is not being ended; None where there is none. Raises HostFault."""
        live = await self._found(id)
        return None if live is None or live.ending is not None else live

    async def ended(self, id: str) -> tuple[EpisodeRow, bytes]:
        """The log's row and trajectory of an episode that has ended, or is about to.

        Raises:
            WireError: 404, 410 `episode_lost`.
        """
        live = await self._found(id)
        last = live and (live.ending or live.pending)
        if last:
            await last.join()
        row, found = await self._row(id), await self._log.trajectory(id)
        if found is None:
            raise _lost(id)
        return row, found

    async def using(self, id: str, use: Callable[[Episode], Awaitable[bytes]]) -> bytes:
        """Use an episode's sandboxes between its steps.

        Raises:
            WireError: 404, 410, or what `use` raised.
        """
        live = await self._usable(id)

        async def work() -> bytes:
            async with self._between_steps(live):
                return await use(live.episode)

        return await self._owner.start(work()).join()

    async def write(self, id: str, path: str, data: bytes) -> None:
        """Write a file into an episode's workspace, and log it. Raises as `using` and `Episode.write_file` do."""
        live = await self._usable(id)

        async def work() -> None:
            async with self._between_steps(live):
                live.mark.begin()
                try:
                    written = await live.episode.write_file(path, data)
                    position = len(live.episode.past.writes)
                    row = WriteRow(episode=id, position=position, turn=written.turn, path=path, data=written.data)
                    await self._log.append(row)
                except UserError:
                    live.mark.undone()
                    raise
                except BaseException:
                    live.mark.spoil()
                    raise
                live.mark.logged()

        await self._owner.start(work()).join()

    @asynccontextmanager
    async def copying(self, live: Live) -> AsyncIterator[None]:
        """The sandboxes of an episode to oneself while copies of them are made."""
        async with self._alone(live):
            live.mark.begin()
            try:
                yield
            except (UserError, WireError):
                live.mark.undone()
                raise
            except BaseException:
                live.mark.spoil()
                raise
            live.mark.undone()

    async def _usable(self, id: str) -> Live:
        live = await self._found(id)
        if live is None or live.ending is not None:
            row = await self._row(id)
            raise _done(id) if row.state is not None or live is not None else _lost(id)
        live.renew()
        return live

    @asynccontextmanager
    async def _between_steps(self, live: Live) -> AsyncIterator[None]:
        async with self._alone(live):
            if live.episode.done:
                raise _done(live.episode.id)
            yield

    async def reap(self) -> None:
        """End episodes whose lease has run out, until cancelled; one whose sandboxes are in use is left to finish."""
        while True:
            await asyncio.sleep(_REAP_EVERY_S)
            now = asyncio.get_running_loop().time()
            for id in [id for id, left in self._left.items() if left.expires < now]:
                # The next round ends it.
                with suppress(AgenthubError):
                    await self._found(id)
            late = [live for live in self._live.values() if live.expires < now and not _busy(live)]
            for live in late:
                if live.ending is None:
                    self._metrics.count("episodes_reaped")
                live.ending = self._owner.start(self._end(live))

    async def close(self) -> None:
        """End every episode. The caller bounds the time."""
        results = await asyncio.gather(*(self.delete(id) for id in [*self._live, *self._left]), return_exceptions=True)
        failed = [result for result in results if isinstance(result, AgenthubError)]
        if failed:
            _logger.warning("%d episodes could not be ended in order: %s", len(failed), failed[0])

    def _forget(self, live: Live, end: Trajectory) -> None:
        live.release()
        self._live.pop(live.episode.id, None)
        self._metrics.count("episodes", outcome=end.outcome.value, stop=end.stop.value)
        if end.outcome is Outcome.ENV_FAULT:
            self._quarantine.add(live.episode.task, end.reason)

    async def _row(self, id: str) -> EpisodeRow:
        row = await self._log.episode(id)
        if row is None:
            raise unknown_episode(id)
        return row


def unknown_episode(id: str) -> WireError:
    """What is said of an episode that never was, and of one that is somebody else's."""
    return WireError("unknown_episode", 404, f"no episode has the id {id[:80]!r}")


def _busy(live: Live) -> bool:
    stepping = live.pending is not None and not live.pending.failed
    return stepping or live.files.locked() or (live.ending is not None and not live.ending.failed)


def _done(id: str) -> WireError:
    return WireError("episode_done", 410, f"episode {id} has ended; its trajectory can still be read")


def _lost(id: str) -> WireError:
    return WireError("episode_lost", 410, f"the hub that ran episode {id} was killed; play the member again")
