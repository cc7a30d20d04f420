"""The blocking face of the client: the same calls, from code without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from agenthub.client.episode import EpisodeHandle
from agenthub.client.hub import Hub
from agenthub.records import Trajectory
from agenthub.wire import Action, EpisodeState, GenerationIn, LimitsIn, StepDone

__all__ = ["BlockingEpisode", "BlockingHub"]

T = TypeVar("T")


class BlockingHub:
    """A `Hub` whose loop runs in a thread of its own, so leases are renewed while the caller computes."""

    def __init__(
        self, url: str, token: str | None = None, *, retry_s: float = 60.0, verify: Path | str | bool = True
    ) -> None:
        """As `Hub`."""
        self._hub = Hub(url, token, retry_s=retry_s, verify=verify)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agenthub-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> BlockingHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def suites(self) -> list[dict[str, Any]]:
        """As `Hub.suites`."""
        return self.run(self._hub.suites())

    def suite(self, name: str) -> dict[str, Any]:
        """As `Hub.suite`."""
        return self.run(self._hub.suite(name))

    def tasks(self, suite: str, split: str | None = None) -> list[dict[str, Any]]:
        """As `Hub.tasks`."""
        return self.run(self._hub.tasks(suite, split))

    def create(
        self,
        suite: str,
        task: str | None = None,
        *,
        seed: int | None = None,
        split: str | None = None,
        count: int = 1,
        group: str | None = None,
        first_member: int = 0,
        limits: LimitsIn | None = None,
        lease_s: float = 60.0,
    ) -> list[BlockingEpisode]:
        """As `Hub.create`."""
        handles = self.run(
            self._hub.create(
                suite,
                task,
                seed=seed,
                split=split,
                count=count,
                group=group,
                first_member=first_member,
                limits=limits,
                lease_s=lease_s,
            )
        )
        return [BlockingEpisode(self, handle) for handle in handles]

    def step_all(self, steps: Sequence[tuple[BlockingEpisode, Action | str]]) -> list[StepDone]:
        """Step several episodes at once; results in order. Raises as `EpisodeHandle.step`, the first error first."""

        async def play() -> list[StepDone]:
            return list(await asyncio.gather(*(episode.handle.step(action) for episode, action in steps)))

        return self.run(play())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the hub's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Close the connection and end the thread. Safe to call again."""
        if self._loop.is_closed():
            return
        self.run(self._hub.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingEpisode:
    """As `EpisodeHandle`, blocking."""

    def __init__(self, hub: BlockingHub, handle: EpisodeHandle) -> None:
        self.handle, self._hub = handle, hub
        self.id, self.group, self.member = handle.id, handle.group, handle.member
        self.observation, self.info = handle.observation, handle.info

    @property
    def next_turn(self) -> int:
        """Index of the turn that comes next."""
        return self.handle.next_turn

    @property
    def done(self) -> bool:
        """True once the episode has ended."""
        return self.handle.done

    def step(self, action: Action | str, generation: GenerationIn | None = None) -> StepDone:
        """As `EpisodeHandle.step`."""
        return self._hub.run(self.handle.step(action, generation))

    def fork(self, count: int, turn: int | None = None) -> list[BlockingEpisode]:
        """As `EpisodeHandle.fork`."""
        return [BlockingEpisode(self._hub, handle) for handle in self._hub.run(self.handle.fork(count, turn))]

    def trajectory(self) -> Trajectory:
        """As `EpisodeHandle.trajectory`."""
        return self._hub.run(self.handle.trajectory())

    def state(self) -> EpisodeState:
        """As `EpisodeHandle.state`."""
        return self._hub.run(self.handle.state())

    def close(self) -> None:
        """As `EpisodeHandle.close`."""
        self._hub.run(self.handle.close())
