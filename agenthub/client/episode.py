"""`EpisodeHandle`: one open episode on the client's side."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from agenthub.codec import decode
from agenthub.errors import HostFault, WireError
from agenthub.records import Trajectory
from agenthub.wire import Action, EpisodeOpened, EpisodeState, GenerationIn, StepDone, StepOf

if TYPE_CHECKING:
    from agenthub.client.hub import Hub

__all__ = ["BEATS_PER_LEASE", "EpisodeHandle"]

BEATS_PER_LEASE = 4


class EpisodeHandle:
    """An open episode. Its lease is renewed as long as the hub object lives and the episode has not ended."""

    def __init__(self, hub: Hub, opened: EpisodeOpened, group: str) -> None:
        self.id, self.group, self.member = opened.id, group, opened.member
        self.observation: dict[str, Any] = opened.observation
        self.info: dict[str, Any] = opened.info
        self.next_turn = opened.turn
        self.done = False
        self.lease_s = opened.lease_expires_s
        self._hub = hub
        self._beat_at = asyncio.get_running_loop().time()

    async def step(
        self, action: Action | str, generation: GenerationIn | None = None, *, timeout_s: float | None = None
    ) -> StepDone:
        """Play the next turn; a string is the action's text. After an error the same call may be made again.

        Raises:
            WireError: the hub refuses (the episode has ended, the tokens do not fit).
            HostFault: the hub lost the episode.
            HubUnreachable: no answer within the budget.
        """
        step = StepOf(
            episode=self.id,
            turn=self.next_turn,
            action=Action(text=action, calls=None) if isinstance(action, str) else action,
            timeout_s=timeout_s,
            generation=generation,
        )
        done = StepDone.model_validate(await self._hub.call("step", step))
        self.played(done)
        return done

    def played(self, done: StepDone) -> None:
        """Move on to the next turn, or end."""
        self.next_turn = done.turn + 1
        self.done = done.terminated or done.truncated
        self._beat_at = asyncio.get_running_loop().time()
        if self.done:
            self._hub.forget(self)

    async def fork(self, count: int, turn: int | None = None) -> list[EpisodeHandle]:
        """`count` copies of the episode as it was before the step of turn `turn`; None is as it is now.

        Each goes on from there by itself, with its own lease; `observation` holds what its last turn showed. An episode
        that has ended can be forked from a turn before its end.

        Raises:
            WireError: the copy would not be sound, there is no such turn, or a replay of it showed something else.
            HostFault, HubUnreachable: as `step` does.
        """
        return await self._hub.fork(self, count, turn)

    async def trajectory(self) -> Trajectory:
        """The record, once the episode has ended. Raises as `step` does."""
        row = await self._hub.call("trajectory", {"episode": self.id})
        return decode(Trajectory, row["trajectory"])

    async def state(self) -> EpisodeState:
        """Where the episode is now. Raises as `step` does."""
        return EpisodeState.model_validate(await self._hub.call("state", {"episode": self.id}))

    async def read_file(self, path: str) -> bytes:
        """A file of the episode's workspace. Raises as `step` does."""
        row = await self._hub.call("file_get", {"episode": self.id, "path": path})
        return base64.b64decode(row["data"])

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file into the episode's workspace. Raises as `step` does."""
        octets = base64.b64encode(data).decode("ascii")
        await self._hub.call("file_put", {"episode": self.id, "path": path, "data": octets})

    async def close(self) -> None:
        """End the episode; nothing happens where it has ended. Raises HubUnreachable."""
        self._hub.forget(self)
        if self.done:
            return
        self.done = True
        try:
            await self._hub.call("delete", {"episode": self.id})
        except (WireError, HostFault):
            return  # the hub has forgotten it, or lost it: there is nothing left to end

    def beat_due(self, now: float) -> bool:
        """True where the lease should be renewed; marks it as renewed."""
        if now - self._beat_at < self.lease_s / BEATS_PER_LEASE:
            return False
        self._beat_at = now
        return True
