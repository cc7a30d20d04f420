"""What is told of each operation, whatever face it came through: its time, a line of the log, a span."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from agenthub.errors import WireError
from agenthub.server.access import Principal
from agenthub.server.answers import boundary
from agenthub.server.logs import event
from agenthub.server.metrics import Metrics
from agenthub.server.tracing import Tracing

__all__ = ["Journal", "error_level"]

T = TypeVar("T")
_logger = logging.getLogger("agenthub.requests")


def error_level(status: int) -> int:
    """How loud a refusal is: our faults, and who may not come in, are warnings; a client's slips are not."""
    return logging.WARNING if status >= 500 or status in (401, 403) else logging.INFO


class Journal:
    """Watches operations."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._metrics, self.tracing = metrics, tracing
        self._times = {"step": metrics.step, "create": metrics.start, "fork": metrics.start}

    async def watch(self, op: str, values: Any, who: Principal, work: Callable[[], Awaitable[T]]) -> T:
        """Run an operation on `values`, its parameters as they came.

        Raises:
            WireError: whatever went wrong, counted and logged.
        """
        started = time.perf_counter()
        try:
            if self.tracing is None:
                result = await work()
            else:
                with self.tracing.span(op, {"token": who.name, **_about(values)}):
                    result = await work()
        except Exception as error:  # the boundary
            raise self.refused(op, values, who, started, error) from error
        self.answered(op, values, who, started)
        return result

    def answered(self, op: str, values: Any, who: Principal, started: float) -> None:
        """An operation that began at `started`, of `time.perf_counter`, has its answer."""
        times = self._times.get(op)
        if times is not None:
            times.observe(time.perf_counter() - started)
        if _logger.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, op, values, who, started, None)

    def refused(self, op: str, values: Any, who: Principal, started: float, error: BaseException) -> WireError:
        """What the wire says of an operation that failed, counted and logged."""
        refused = self.refusal(error)
        self._log(error_level(refused.status), op, values, who, started, refused)
        return refused

    def refusal(self, error: BaseException) -> WireError:
        """The error that the wire says for an exception, counted."""
        refused = boundary(error)
        self._metrics.count("errors", code=refused.code)
        return refused

    def _log(self, level: int, op: str, values: Any, who: Principal, started: float, refused: WireError | None) -> None:
        if not _logger.isEnabledFor(level):
            return
        seconds = round(time.perf_counter() - started, 6)
        told = {"op": op[:80], "token": who.name, **_about(values), "seconds": seconds}
        if refused is None:
            event(_logger, level, "answered", **told)
        else:
            event(_logger, level, refused.message[:500], status=refused.status, code=refused.code, **told)


def _about(values: Any) -> dict[str, Any]:
    """What a request says of itself."""
    if not isinstance(values, Mapping):
        return {}
    asked = ((name, values.get(name)) for name in ("episode", "turn", "suite", "task"))
    return {name: value[:200] if isinstance(value, str) else value for name, value in asked if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int)
