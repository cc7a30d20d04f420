"""Canaries: tasks that nobody can solve, played among the others. One that is solved has found a hole in its judge.

A collector around another one. Which groups get a canary beside them, and which, follows from their names alone, so a
run that was resumed plays the same ones. Canaries never train; every one is a line of the run's canaries.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agenthub.codec import encode
from agenthub.errors import UserError
from agenthub.records import Trajectory
from agenthub.rollout import CollectStats, Play, turn_seed
from agenthub.trainers.config import CanariesConfig
from agenthub.trainers.flow import Collects

__all__ = ["CANARIES", "Canaries"]

CANARIES = "canaries.jsonl"
_LABEL = "canary/"


class Canaries:
    """A collector that plays canaries beside its groups, and stops the run where one is solved."""

    def __init__(self, inner: Collects, config: CanariesConfig, tasks: Sequence[str], path: Path) -> None:
        """
        Args:
            tasks: ids of the canaries.
            path: of the file that gets a line for each.
        """
        self._inner, self._config, self._tasks, self._path = inner, config, list(tasks), path
        self.stats = CollectStats()

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """The groups without the canaries.

        Raises:
            UserError: a canary has a reward above 0; its trajectory is in the file.
            HostFault, HubUnreachable, WireError: as the inner collector raises them.
        """
        canaries = [canary for play in plays if (canary := self._beside(play, seed)) is not None]
        found = await self._inner.collect([*plays, *canaries], seed=seed)
        self.stats = self._inner.stats
        own = {play.group for play in canaries}
        self._write([one for one in found if one.group in own])
        for one in found:
            if one.group in own and (one.reward or 0.0) > 0.0:
                raise UserError(
                    f"the canary {one.task} was accepted, and nobody can solve it: its judge has a hole, and the run"
                    f" stops; what was accepted is the last line of {self._path}"
                )
        return [one for one in found if one.group not in own]

    def _beside(self, play: Play, seed: int) -> Play | None:
        rng = np.random.default_rng(turn_seed(seed, f"{_LABEL}{play.group}", 0, 0))
        if rng.random() >= self._config.share:
            return None
        task = self._tasks[int(rng.integers(len(self._tasks)))]
        group, suite = f"{_LABEL}{play.group}", self._config.suite
        return replace(play, suite=suite, task=task, group=group, count=self._config.episodes)

    def _write(self, rows: Sequence[Trajectory]) -> None:
        """One that was accepted comes last."""
        if rows:
            with self._path.open("a", encoding="utf-8") as file:
                for one in sorted(rows, key=lambda one: one.reward or 0.0):
                    file.write(json.dumps(encode(one)) + "\n")
