"""Tasks that turned out to be broken: they are not played until an administrator releases them.

Kept in memory: a task is mended in its suite's file, and a hub reads that when it starts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agenthub.errors import BoxLost, TaskBroken, WireError
from agenthub.suites.task import Task

__all__ = ["Quarantine"]

_logger = logging.getLogger("agenthub.server")


class Quarantine:
    """The broken tasks of one hub, by key (`suite/task`)."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def add(self, task: Task, reason: str) -> None:
        """Keep a task from being played from now on; the first reason stays."""
        if task.key not in self._rows:
            _logger.warning("task %s is quarantined: %s", task.key, reason[:500])
            self._rows[task.key] = {"task": task.key, "reason": reason[:2000], "since_s": time.time()}

    def rows(self) -> list[dict[str, Any]]:
        """Every task in quarantine: `task`, `reason`, and `since_s` in seconds since the epoch."""
        return [self._rows[key] for key in sorted(self._rows)]

    def count(self, suite: str) -> int:
        """How many tasks of a suite are in quarantine."""
        return sum(key.startswith(f"{suite}/") for key in self._rows)

    def release(self, key: str) -> dict[str, Any]:
        """Let a task be played again; gives its row.

        Raises:
            WireError: 404 `not_quarantined`.
        """
        if key not in self._rows:
            raise WireError("not_quarantined", 404, f"task {key[:400]!r} is not in quarantine")
        return self._rows.pop(key)

    def check(self, key: str) -> None:
        """
        Raises:
            WireError: 409 `task_quarantined`, with the reason.
        """
        row = self._rows.get(key)
        if row is not None:
            text = f"task {key} is quarantined: {row['reason']}"
            raise WireError("task_quarantined", 409, text, row)

    @contextmanager
    def watching(self, task: Task) -> Iterator[None]:
        """Whatever shows inside that the task is broken puts it here: a box too that ends before a policy came."""
        try:
            yield
        except (TaskBroken, BoxLost) as broken:
            self.add(task, str(broken))
            raise
