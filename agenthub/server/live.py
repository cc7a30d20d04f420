"""One live episode as the hub keeps it: the episode, its lease, and the step in progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agenthub.codec import encode, trajectory_hash
from agenthub.episodes import Episode
from agenthub.errors import WireError
from agenthub.log import EpisodeEnd, StepRow
from agenthub.records import Trajectory
from agenthub.server.admission import Ticket
from agenthub.server.answers import dumps
from agenthub.server.ledger import Mark
from agenthub.server.owner import Job
from agenthub.wire import EpisodeOpened, EpisodeState

__all__ = ["Live", "Pending", "end_row", "turn_conflict", "turn_order"]


@dataclass(slots=True)
class Pending:
    """The step in progress, or one that was played and could not be logged yet."""

    turn: int
    hash: str
    body: bytes
    job: Job[bytes] | None = None
    """None where it was played at once and nobody has joined it yet."""
    answer: bytes = b""
    entries: Sequence[StepRow | EpisodeEnd] = ()
    """What the step adds to the log; empty until it was played."""

    @property
    def failed(self) -> bool:
        """True where it was played, or not even that, and could not be logged."""
        return self.job is not None and self.job.failed

    async def join(self) -> bytes:
        """Wait for the answer. Raises as Job.join does."""
        if self.job is None:
            self.job = Job()
        return await self.job.join()

    def then(self, told: Callable[[bytes | WireError], None]) -> None:
        """Call `told` with the answer of a step that has a job."""
        if self.job is not None:
            self.job.then(told)

    def settle(self, answer: bytes | WireError) -> None:
        """Tell whoever joined a step that was played at once; they see later what becomes of one that failed."""
        if self.job is None and isinstance(answer, WireError):
            self.job = Job()
        if self.job is not None:
            self.job.set(answer)


@dataclass(slots=True)
class Live:
    """An episode that has not ended, or whose end is not in the log yet."""

    episode: Episode
    lease_s: float
    expires: float
    """Time of the loop's clock."""
    mark: Mark
    """What tells after a kill whether its sandboxes are in the logged state."""
    owner: str = ""
    """Name of the token that opened it; empty where the hub has none."""
    pending: Pending | None = None
    ending: Job[bytes] | None = None
    last: StepRow | None = None
    """The last answered step; the earlier ones are in the log."""
    kept: bool = False
    """For an episode that is asleep: what a killed hub kept of its sandboxes is in the logged state."""
    ticket: Ticket | None = None
    """What it holds of the hub's memory; None where nothing was admitted."""
    files: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the episode's sandboxes are in use: they serve one caller at a time."""

    def renew(self, lease_s: float | None = None) -> float:
        """Begin the lease anew; seconds until it runs out."""
        self.lease_s = lease_s or self.lease_s
        self.expires = asyncio.get_running_loop().time() + self.lease_s
        return self.lease_s

    @property
    def lease_left_s(self) -> float:
        """Seconds until the lease runs out; 0.0 once it has."""
        return max(0.0, self.expires - asyncio.get_running_loop().time())

    def opened(self, observation: dict[str, object]) -> EpisodeOpened:
        """What the client is told of a new episode."""
        episode = self.episode
        public = episode.task.public()
        info = {key: value for key, value in public.items() if key not in ("messages", "tools", "protocol")}
        info["task"] = info.pop("id")
        limits = encode(episode.limits)
        info["limits"] = {name: limits[name] for name in ("max_turns", "max_tokens", "turn_seconds", "episode_seconds")}
        info["fork"] = episode.fork_way
        if episode.parent is not None:
            info |= {"parent": episode.parent, "fork_turn": episode.fork_turn}
        return EpisodeOpened(
            id=episode.id,
            member=episode.member,
            turn=episode.next_turn,
            observation=observation,
            info=info,
            lease_expires_s=self.lease_s,
        )

    def release(self) -> None:
        """Give back what its boxes were promised: they are closed, and not to be found again. Safe to call again."""
        self.mark.release()
        if self.ticket is not None:
            self.ticket.release()

    def state(self) -> EpisodeState:
        """Where the episode is now."""
        end = self.episode.trajectory
        return EpisodeState(
            id=self.episode.id,
            group=self.episode.group,
            member=self.episode.member,
            task=self.episode.task.key,
            turn=self.episode.next_turn,
            done=end is not None,
            stop=None if end is None else end.stop.value,
            outcome=None if end is None else end.outcome.value,
            reward=None if end is None else end.reward,
            lease_expires_s=0.0 if end else self.lease_left_s,
        )


def end_row(live: Live, end: Trajectory, hashed: str | None = None) -> EpisodeEnd:
    """The log's entry for an episode that has ended; `hashed` is its trajectory's hash where it is known already."""
    hashed = hashed or trajectory_hash(end)
    return EpisodeEnd(
        episode=live.episode.id,
        state=dumps(dict(live.state())),
        hash=hashed,
        trajectory=dumps(
            {"id": live.episode.id, "hash": hashed, "trajectory": encode(end), "replay": live.episode.past.facts()}
        ),
    )


def turn_conflict(episode: str, turn: int) -> WireError:
    """Another body was sent for a turn that was played, or is being played."""
    return WireError(
        "turn_conflict", 409, f"turn {turn} of episode {episode} was sent before with another body", {"turn": turn}
    )


def turn_order(episode: str, turn: int, expected: int) -> WireError:
    """A turn that is not the next one."""
    return WireError(
        "turn_order",
        409,
        f"turn {turn} of episode {episode} is out of order: the next is {expected}",
        {"turn": turn, "expected": expected},
    )
