"""Work that is cheaper together: what is asked for while a run goes on is done in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Gather"]

K = TypeVar("K")
V = TypeVar("V")
_LOOK_S = 0.02


class Gather(Generic[K, V]):
    """Calls of `run` with everything that has been asked for, one call at a time."""

    def __init__(
        self,
        run: Callable[[Sequence[K]], Awaitable[Sequence[V]]],
        *,
        most: int,
        wait_s: float = 0.0,
        more: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            run: gives a result for each item, in order.
            most: items of one call.
            wait_s: how long a first item waits for others at most.
            more: False where nothing else is on its way, so that nobody waits.
        """
        self._run, self._most, self._wait_s, self._more = run, most, wait_s, more
        self._asked: list[tuple[K, asyncio.Future[V]]] = []
        self._lock = asyncio.Lock()

    async def get(self, item: K) -> V:
        """The result of one item. Raises what `run` raises."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        entry = (item, future)
        self._asked.append(entry)
        try:
            async with self._lock:
                if future.done():
                    return await future
                await self._others()
                first = [one for one in self._asked if one is entry]
                batch = [*first, *(one for one in self._asked if one is not entry)][: self._most]
                taken = {id(one) for one in batch}
                self._asked = [one for one in self._asked if id(one) not in taken]
                await self._done(batch)
                return await future
        finally:
            self._asked = [one for one in self._asked if one is not entry]

    async def _others(self) -> None:
        """Wait while others are on their way. Those that ask at the same time are always waited for."""
        await asyncio.sleep(0)
        for _ in range(int(self._wait_s / _LOOK_S)):
            if len(self._asked) >= self._most or not self._more():
                return
            await asyncio.sleep(_LOOK_S)

    async def _done(self, batch: list[tuple[K, asyncio.Future[V]]]) -> None:
        """Run a batch; each waiter gets its result, or the error."""
        try:
            results = await self._run([item for item, _ in batch])
        except Exception as error:
            # The boundary between one run and those who wait for it: whatever it raised, each of them raises.
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
                    # Its waiter may have gone; then nobody looks at the error again.
                    future.exception()
            return
        except BaseException:
            # The caller that ran the batch was cancelled; the next one runs it for the others.
            self._asked = batch + self._asked
            raise
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
