"""What can be played: suites and their tasks, as a client may see them. Never a hidden target.

A suite is built when it is first asked for, in a thread: some generate their tasks or import heavy packages.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agenthub.errors import ConfigError, UnknownName, WireError
from agenthub.server.params import TaskPage
from agenthub.server.quarantine import Quarantine
from agenthub.suites.equipment import lacking
from agenthub.suites.task import Suite, Task

__all__ = ["Catalog"]


class Catalog:
    """The suites of one hub."""

    def __init__(self, suites: Mapping[str, Suite], unavailable: Mapping[str, str] | None = None) -> None:
        """`unavailable` names suites that this machine cannot play, and what each of them needs."""
        self._suites = suites
        self._unavailable = dict(unavailable or {})
        self._built: dict[str, Suite] = {}
        self._tasks: dict[str, dict[str, Task]] = {}
        self._building = asyncio.Lock()
        self.quarantine = Quarantine()

    def __len__(self) -> int:
        return len(self._suites)

    async def list(self) -> dict[str, Any]:
        """Every suite that can be played, by name, and why the others cannot."""
        rows = []
        for name in sorted(self._suites):
            try:
                rows.append(await self.describe(name))
            except WireError as broken:
                self._unavailable[name] = broken.message
        return {"suites": rows, "unavailable": self._unavailable}

    async def describe(self, name: str) -> dict[str, Any]:
        """One suite: header and how many tasks each split has.

        Raises:
            UnknownName: there is no such suite.
            WireError: 404 `suite_unavailable`: this machine cannot play it, or its file is broken.
        """
        suite = await self._suite(name)
        counts = Counter(task.split for task in suite.tasks)
        return {
            "name": suite.name,
            "version": suite.version,
            "description": suite.description,
            "license": suite.license,
            "tasks": len(suite.tasks),
            "splits": {split: counts[split] for split in suite.splits},
            "quarantined": self.quarantine.count(name),
        }

    async def page(self, asked: TaskPage) -> dict[str, Any]:
        """Public facts of a page of tasks, in the suite's order. Raises as `describe` does."""
        tasks = await self._split(asked.suite, asked.split)
        page = tasks[asked.offset : asked.offset + asked.limit]
        rows = [task.public() | {"quarantined": task.key in self.quarantine} for task in page]
        return {"total": len(tasks), "offset": asked.offset, "tasks": rows}

    async def task(self, suite: str, id: str) -> Task:
        """A task by id. Raises as `describe` does."""
        await self._suite(suite)
        tasks = self._tasks[suite]
        if id not in tasks:
            raise UnknownName("task", id, tasks, suite)
        return tasks[id]

    async def draw(self, suite: str, split: str | None, seed: int) -> Task:
        """The task that a seed draws: the same on every machine, uniform over seeds.

        Where that task is quarantined the seed draws again, so that no other seed's task changes.

        Raises:
            UnknownName: no such suite or split.
            WireError: as `describe`, 422 `invalid`: the split has no task, or 409 `task_quarantined`: none is left.
        """
        tasks = await self._split(suite, split)
        if not tasks:
            raise WireError("invalid", 422, f"split {split!r} of suite {suite!r} has no task")
        first = _drawn(f"{suite}/{split or ''}/{seed}", tasks)
        if first.key not in self.quarantine:
            return first
        left = [task for task in tasks if task.key not in self.quarantine]
        if not left:
            self.quarantine.check(first.key)
        return _drawn(f"{suite}/{split or ''}/{seed}/again", left)

    async def languages(self) -> dict[str, Mapping[str, Any]]:
        """The languages that the suites declare, by name; of two with one name that of the first suite."""
        found: dict[str, Mapping[str, Any]] = {}
        for name in sorted(self._suites):
            try:
                found = {**(await self._suite(name)).languages, **found}
            except WireError as broken:
                self._unavailable[name] = broken.message
        return found

    async def _suite(self, name: str) -> Suite:
        if name in self._built:
            return self._built[name]
        if name in self._unavailable:
            raise _unavailable(name, self._unavailable[name])
        if name not in self._suites:
            raise UnknownName("suite", name, self._suites)
        async with self._building:
            if name not in self._built:
                try:
                    built = await asyncio.to_thread(self._suites.__getitem__, name)
                except ConfigError as error:
                    raise _unavailable(name, str(error)) from error
                missing = await asyncio.to_thread(lacking, built)
                if missing:
                    self._unavailable[name] = missing
                    raise _unavailable(name, missing)
                self._tasks[name] = {task.id: task for task in built.tasks}
                self._built[name] = built
            return self._built[name]

    async def _split(self, suite: str, split: str | None) -> tuple[Task, ...]:
        found = await self._suite(suite)
        if split is None:
            return found.tasks
        if split not in found.splits:
            raise UnknownName("split", split, found.splits, suite)
        return found.split(split)


def _drawn(text: str, tasks: Sequence[Task]) -> Task:
    return tasks[int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % len(tasks)]


def _unavailable(name: str, why: str) -> WireError:
    return WireError("suite_unavailable", 404, f"suite {name!r} cannot be played here: {why}")
