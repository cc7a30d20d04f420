"""What can be played: suites and their tasks, as a client may see them. Never a hidden target."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agenthub.errors import UnknownName, WireError
from agenthub.server.params import TaskPage
from agenthub.suites.task import Suite, Task

__all__ = ["Catalog"]


class Catalog:
    """The suites of one hub."""

    def __init__(self, suites: Mapping[str, Suite], unavailable: Mapping[str, str] | None = None) -> None:
        """`unavailable` names suites that this machine cannot play, and what each of them needs."""
        self._suites = dict(suites)
        self._unavailable = dict(unavailable or {})
        self._tasks = {name: {task.id: task for task in suite.tasks} for name, suite in suites.items()}

    def __len__(self) -> int:
        return len(self._suites)

    def list(self) -> dict[str, Any]:
        """Every suite, by name."""
        return {"suites": [self.describe(name) for name in sorted(self._suites)]}

    def describe(self, name: str) -> dict[str, Any]:
        """One suite: header and how many tasks each split has.

        Raises:
            UnknownName: there is no such suite.
            WireError: 404 `suite_unavailable`.
        """
        suite = self._suite(name)
        counts = Counter(task.split for task in suite.tasks)
        return {
            "name": suite.name,
            "version": suite.version,
            "description": suite.description,
            "license": suite.license,
            "tasks": len(suite.tasks),
            "splits": {split: counts[split] for split in suite.splits},
        }

    def page(self, asked: TaskPage) -> dict[str, Any]:
        """Public facts of a page of tasks, in the suite's order. Raises as `describe` does."""
        tasks = self._split(asked.suite, asked.split)
        rows = [task.public() for task in tasks[asked.offset : asked.offset + asked.limit]]
        return {"total": len(tasks), "offset": asked.offset, "tasks": rows}

    def task(self, suite: str, id: str) -> Task:
        """A task by id. Raises as `describe` does."""
        self._suite(suite)
        tasks = self._tasks[suite]
        if id not in tasks:
            raise UnknownName("task", id, tasks, suite)
        return tasks[id]

    def draw(self, suite: str, split: str | None, seed: int) -> Task:
        """The task that a seed draws: the same on every machine, uniform over seeds.

        Raises:
            UnknownName: no such suite or split.
            WireError: 422 `invalid`: the split has no task.
        """
        tasks = self._split(suite, split)
        if not tasks:
            raise WireError("invalid", 422, f"split {split!r} of suite {suite!r} has no task")
        drawn = hashlib.sha256(f"{suite}/{split or ''}/{seed}".encode()).digest()
        return tasks[int.from_bytes(drawn[:8], "big") % len(tasks)]

    def _suite(self, name: str) -> Suite:
        if name in self._unavailable:
            lacking = self._unavailable[name]
            raise WireError("suite_unavailable", 404, f"suite {name!r} cannot be played here: {lacking}")
        if name not in self._suites:
            raise UnknownName("suite", name, self._suites)
        return self._suites[name]

    def _split(self, suite: str, split: str | None) -> tuple[Task, ...]:
        found = self._suite(suite)
        if split is None:
            return found.tasks
        if split not in found.splits:
            raise UnknownName("split", split, found.splits, suite)
        return found.split(split)
