"""A hub in a thread of its own, for tests that play many short examples against one hub."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server.harness import RunningHub, hub

__all__ = ["background_hub"]

_START_S = 30.0


@contextmanager
def background_hub(folder: Path, *, token: str | None = None) -> Iterator[RunningHub]:
    """Serve inside the context, on another thread's loop: ask it over its URL alone."""
    found: list[RunningHub] = []
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with hub(folder, token=token, max_episodes=100_000, memory_mb=10_000_000) as served:
            found.append(served)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="hub", daemon=True)
    thread.start()
    try:
        assert ready.wait(_START_S), "the hub did not start"
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_START_S)
        loop.close()
