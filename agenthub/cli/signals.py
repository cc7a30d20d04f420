"""Running a command until it is done or a signal stops it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["run_until_signal"]

GRACE_S = 1.0


def run_until_signal(work: Coroutine[Any, Any, None], on_signal: Callable[[], None] | None = None) -> int:
    """Run `work`; on SIGINT or SIGTERM cancel it, let it clean up, and return the signal's number (0 without one).

    `on_signal` is called at once, so that what it says is said also where cleaning up takes longer than it may.

    A thread that is deep in a computation cannot be cancelled. One that is still there a second after a signal ends
    with the process, which exits at once: whatever has to be kept is on the disk by then.
    """
    caught: list[int] = []

    async def guarded() -> None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            caught.append(number)
            if task is not None and len(caught) == 1:
                _exit_later(128 + number)
                if on_signal is not None:
                    on_signal()
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, int(number))
        await work

    try:
        asyncio.run(guarded())
    except asyncio.CancelledError:
        if not caught:
            raise
    return caught[0] if caught else 0


def _exit_later(status: int) -> None:
    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    timer = threading.Timer(GRACE_S, leave)
    timer.daemon = True
    timer.start()
