"""A warm pool: boxes that are started ahead, used once, and replaced in the background between two water marks."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque

from agenthub.errors import AgenthubError, HostFault
from agenthub.isolation import Box, BoxSpec, Isolation

__all__ = ["Pool"]


class Pool:
    """Boxes of one spec. `take` gives a warm one where there is one, and starts one where there is none."""

    def __init__(self, isolation: Isolation, spec: BoxSpec, *, low: int, high: int) -> None:
        if not 0 <= low < high:
            raise ValueError(f"a pool needs 0 <= low < high, not {low} and {high}")
        self._isolation, self._spec = isolation, spec
        self._low, self._high = low, high
        self._warm: deque[Box] = deque()
        self._wanted = asyncio.Event()
        self._filler: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._busy = 0

    async def take(self) -> Box:
        """A fresh box. Raises as Isolation.spawn does."""
        if self._filler is None:
            # Owned by the pool for its whole life and awaited in `close`.
            self._filler = asyncio.get_running_loop().create_task(self._fill(), name="pool")
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

    async def _fill(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._warm) < self._high:
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


def _ended(box: Box) -> bool:
    """True where a box that nobody has used is of no use, asked of the kernel now: a callback may come too late."""
    events = select.poll()
    events.register(box.fileno(), 0)
    return bool(events.poll(0))
