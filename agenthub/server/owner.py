"""Work that the hub owns: it goes on whatever becomes of the request that asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

from agenthub.errors import WireError
from agenthub.server.answers import boundary

__all__ = ["Job", "Owner", "stopping"]

T = TypeVar("T")


def stopping() -> WireError:
    """The error of a hub that is going down."""
    return WireError("stopping", 503, "the hub is stopping")


class Owner:
    """Whose tasks the server's work is; a client that vanishes cancels nothing of it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Owner:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what still runs and wait for it."""
        self._closed = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> Job[T]:
        """Begin `work`; await the job's `join` for its result.

        Raises:
            WireError: 503 `stopping`: the owner is gone.
        """
        if self._closed:
            work.close()
            raise stopping()
        job: Job[T] = Job()

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            job.settle(work)

        job.task = asyncio.get_running_loop().create_task(job.run(work))
        self._tasks.add(job.task)
        job.task.add_done_callback(ended)
        return job


class Job(Generic[T]):
    """One piece of owned work; any number of callers join it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self._why: WireError | None = None
        """What is told to those who wait for work that was cancelled; None is that the hub stops."""
        self._result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # A result that nobody waits for any more is not worth a warning.
        self._result.add_done_callback(lambda future: future.cancelled() or future.exception())

    def then(self, told: Callable[[T | WireError], None]) -> None:
        """Call `told` with the result, or with what `join` would raise."""

        def done(future: asyncio.Future[T]) -> None:
            error = future.exception()
            told(future.result() if error is None else boundary(error))

        self._result.add_done_callback(done)

    def set(self, result: T | WireError) -> None:
        """The result of work that is no task."""
        if isinstance(result, WireError):
            self._result.set_exception(result)
        else:
            self._result.set_result(result)

    @property
    def failed(self) -> bool:
        """True once the work has ended with an error."""
        return self._result.done() and self._result.exception() is not None

    async def join(self) -> T:
        """Wait for the result; the waiter's cancellation does not reach the work.

        Raises:
            WireError: what went wrong; where the work was cancelled what `cancel` was given, else 503 `stopping`.
        """
        return await asyncio.shield(self._result)

    async def cancel(self, why: WireError | None = None) -> None:
        """Cancel the work and wait until it has ended; `why` is what its waiters are told, not that the hub stops."""
        if self.task is not None:
            self._why = why
            self.task.cancel()
            await asyncio.wait([self.task])

    async def run(self, work: Coroutine[Any, Any, T]) -> None:
        """The body of the job's task: never raises but for its own cancellation."""
        try:
            result = await work
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the boundary: a bug in one request ends no other
            self._result.set_exception(boundary(error))
        else:
            self._result.set_result(result)

    def settle(self, work: Coroutine[Any, Any, T]) -> None:
        """Close what a cancellation left: the work, where it never began, and the waiters."""
        work.close()
        if not self._result.done():
            self._result.set_exception(self._why or stopping())
