"""A warm pool: boxes that are started ahead, used once, and replaced in the background between two water marks.

The high mark follows the demand: a trainer that opens 128 episodes at once, again and again, finds more of them warm
each time; a pool that nobody has asked for a while gives its surplus back.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque

from agenthub.errors import AgenthubError, HostFault
from agenthub.isolation import Box, BoxSpec, Isolation

__all__ = ["Pool"]

RECENT_S = 10.0
"""Boxes taken within this time are what the pool expects to be asked for again."""


class Pool:
    """Boxes of one spec. `take` gives a warm one where there is one, and starts one where there is none."""

    def __init__(self, isolation: Isolation, spec: BoxSpec, *, low: int, high: int, most: int | None = None) -> None:
        """
        Args:
            low: at or below so many warm boxes the pool is filled.
            high: so many are kept warm.
            most: so many may be kept warm while that many are being taken; None is `high`.
        """
        if not 0 <= low < high:
            raise ValueError(f"a pool needs 0 <= low < high, not {low} and {high}")
        self._isolation, self._spec = isolation, spec
        self._low, self._high, self._most = low, high, max(high, most or high)
        self._taken: deque[float] = deque()
        self._warm: deque[Box] = deque()
        self._wanted = asyncio.Event()
        self._filler: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._busy = 0

    def __len__(self) -> int:
        """How many boxes are warm."""
        return len(self._warm)

    async def take(self) -> Box:
        """A fresh box. Raises as Isolation.spawn does."""
        if self._filler is None:
            # Owned by the pool for its whole life and awaited in `close`.
            self._filler = asyncio.get_running_loop().create_task(self._fill(), name="pool")
        self._taken.append(asyncio.get_running_loop().time())
        while self._warm:
            box = self._warm.popleft()
            if _ended(box):
                box.discard()
                continue
            if len(self._warm) <= self._low:
                self._wanted.set()
            return box
        self._wanted.set()
        self._busy += 1
        try:
            return await self._isolation.spawn(self._spec)
        finally:
            self._busy -= 1
            if self._busy == 0:
                self._idle.set()

    async def close(self) -> None:
        """Stop filling and give up what is warm."""
        if self._filler is not None:
            self._filler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filler
        for box in self._warm:
            box.discard()
        self._warm.clear()

    def _target(self) -> int:
        """Boxes to keep warm now."""
        since = asyncio.get_running_loop().time() - RECENT_S
        while self._taken and (self._taken[0] < since or len(self._taken) > self._most):
            self._taken.popleft()
        return max(self._high, len(self._taken))

    async def _fill(self) -> None:
        while True:
            await self._asked()
            while len(self._warm) < self._target():
                while self._busy:
                    # Somebody waits for a box now; filling the pool beside them would only make them wait longer.
                    self._idle.clear()
                    await self._idle.wait()
                try:
                    self._warm.append(await self._isolation.spawn(self._spec))
                except HostFault:
                    # The next `take` meets the same fault and reports it to somebody who can act on it.
                    break
                except AgenthubError:
                    return

    async def _asked(self) -> None:
        """Wait until the pool is to be filled; give back what nobody has asked for meanwhile."""
        while len(self._warm) > self._high and not self._wanted.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), RECENT_S)
            while len(self._warm) > self._target():
                self._warm.pop().discard()
        await self._wanted.wait()
        self._wanted.clear()


def _ended(box: Box) -> bool:
    """True where a box that nobody has used is of no use, asked of the kernel now: a callback may come too late."""
    events = select.poll()
    events.register(box.fileno(), 0)
    return bool(events.poll(0))
