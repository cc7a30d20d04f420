"""How one step of a live episode is played and logged, at once or by a task of its own.

What was played once is never played again: where only its logging failed, the same request logs it. Whether a request
is the next step at all, or one that was answered before, is the table's to say.
"""

from __future__ import annotations

from collections.abc import Callable

from agenthub.errors import HostFault, WireError
from agenthub.log import EpisodeLog, StepRow
from agenthub.records import Trajectory
from agenthub.server.answers import boundary, digest, quick_dumps
from agenthub.server.live import Live, Pending, end_row
from agenthub.server.metrics import Metrics
from agenthub.server.owner import Owner
from agenthub.server.recovery import Recovery
from agenthub.wire import StepDone, StepOf

__all__ = ["Stepping"]


class Stepping:
    """Plays steps.

    Args:
        spoilt: ends an episode whose state is not known any more.
        forget: takes an episode whose end is in the log out of the table.
    """

    def __init__(
        self,
        log: EpisodeLog,
        owner: Owner,
        metrics: Metrics,
        recovery: Recovery,
        *,
        spoilt: Callable[[Live], None],
        forget: Callable[[Live, Trajectory], None],
    ) -> None:
        self._log, self._owner, self._metrics, self._recovery = log, owner, metrics, recovery
        self._spoilt, self._forget = spoilt, forget

    def start(self, live: Live, request: StepOf, body: bytes, hashed: str) -> Pending:
        """Begin the episode's next step in a task of its own. Raises WireError where the hub is stopping."""
        pending = Pending(request.turn, hashed, body)
        pending.job = self._owner.start(self._play(live, pending, request))
        live.pending = pending
        return pending

    def again(self, live: Live, pending: Pending, request: StepOf) -> None:
        """Begin a step once more that could not be logged."""
        pending.job = self._owner.start(self._play(live, pending, request))

    def now(self, live: Live, request: StepOf, body: bytes, then: Callable[[bytes | WireError], None]) -> bool:
        """Play the episode's next step at once; `then` is called with the answer after its commit.

        False where something has to be waited for: nothing has happened then, and `then` is not called.

        Raises:
            WireError: facts about tokens that do not fit; nothing has happened.
        """
        try:
            done = live.episode.step_now(request.action, timeout_s=request.timeout_s, generation=request.generation)
            if done is None:
                return False
            live.mark.begin()
            pending = Pending(request.turn, digest(body), body)
            _played(live, pending, done)
        except WireError:
            raise
        except Exception:
            # A bug in the middle of a turn: what the episode holds now is not known, so it ends here.
            self._spoilt(live)
            raise
        live.pending = pending

        def logged(fault: HostFault | None) -> None:
            answer = pending.answer if fault is None else boundary(fault)
            if fault is None:
                self._logged(live, pending)
            pending.settle(answer)
            then(answer)

        self._log.append_soon(pending.entries, logged)
        return True

    async def _play(self, live: Live, pending: Pending, request: StepOf) -> bytes:
        """Play the pending step, unless only its logging failed, and log it."""
        if not pending.entries:
            try:
                async with live.files:
                    if live.episode.asleep:
                        await self._recovery.wake(live)
                    live.mark.begin()
                    done = await live.episode.step(
                        request.action, timeout_s=request.timeout_s, generation=request.generation
                    )
                _played(live, pending, done)
            except WireError:
                live.pending = None
                live.mark.undone()
                raise
            except Exception:
                # As in `now`.
                live.pending = None
                self._spoilt(live)
                raise
        await self._log.append(*pending.entries)
        self._logged(live, pending)
        return pending.answer

    def _logged(self, live: Live, pending: Pending) -> None:
        live.pending = None
        live.mark.logged()
        live.last = next(row for row in pending.entries if isinstance(row, StepRow))
        live.renew()
        self._metrics.count("steps")
        if live.episode.trajectory is not None:
            self._forget(live, live.episode.trajectory)


def _played(live: Live, pending: Pending, done: StepDone) -> None:
    """Write down a step that was played: its answer, and what it adds to the log."""
    row = {**vars(done), "episode": live.episode.id}
    end = live.episode.trajectory
    if end is not None:
        live.release()
    ended = [] if end is None else [end_row(live, end, done.info.get("hash"))]
    if ended:
        row["info"] = {**done.info, "hash": ended[0].hash}
    pending.answer = quick_dumps(row)
    played = live.episode.last
    step = StepRow(
        episode=live.episode.id,
        turn=pending.turn,
        hash=pending.hash,
        body=pending.body,
        answer=pending.answer,
        at_s=played.at_s,
        seconds=played.turn.seconds,
        restored=played.restored,
    )
    pending.entries = [step, *ended]
