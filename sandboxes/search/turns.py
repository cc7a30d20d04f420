"""Turns at a host: a few fetches of one host at once, and a pause between their beginnings."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

__all__ = ["HostTurns"]

_KNOWN = 4096
"""Hosts whose last turn is remembered."""


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore
    next_at: float = 0.0
    """Time of the loop's clock before which no turn begins."""


class HostTurns:
    """Gives turns, first come, first served."""

    def __init__(self, at_once: int, pause_s: float) -> None:
        self._at_once, self._pause_s = at_once, pause_s
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """A turn at a host, as long as the context lasts."""
        known = self._hosts.setdefault(host, _Host(asyncio.Semaphore(self._at_once)))
        self._hosts.move_to_end(host)
        while len(self._hosts) > _KNOWN:
            self._hosts.popitem(last=False)
        async with known.slots:
            now = asyncio.get_running_loop().time()
            begin = max(now, known.next_at)
            known.next_at = begin + self._pause_s
            await asyncio.sleep(begin - now)
            yield
