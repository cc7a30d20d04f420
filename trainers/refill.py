"""Dynamic sampling: groups that the filter would throw away are played anew on other tasks, a bounded number of times.

Source: DAPO, arXiv 2503.14476; verl recipe/dapo, `filter_groups` with `max_num_gen_batches`. A collector around another
one, so that a group reaches the ledger once and whole, whatever was tried before it. The task that stands in is drawn
from the group's name alone: a run that was interrupted tries the same ones again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agenthub.records import Trajectory, frozen
from agenthub.rollout import CollectStats, Play, turn_seed
from agenthub.trainers.batch import build_batch, solved
from agenthub.trainers.flow import Collects
from agenthub.trainers.plugins import Filter, Shaping

__all__ = ["Refill"]

_OTHER_SEED = 7919


class Refill:
    """A collector that goes on until each group is one that the filter keeps."""

    def __init__(
        self, inner: Collects, *, filter: Filter, shaping: Sequence[Shaping], tasks: Sequence[str], rounds: int
    ) -> None:
        """
        Args:
            filter: the recipe's; it sees one group at a time, with the shaping's components in its rewards.
            tasks: ids to draw from.
        """
        self._inner, self._filter, self._shaping = inner, filter, shaping
        self._tasks, self._rounds = list(tasks), rounds
        self.stats = CollectStats()

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """The groups; the first member of one that was played anew tells in its metadata what was thrown away.

        Raises:
            HostFault, HubUnreachable, WireError: as the inner collector raises them.
        """
        self.stats = CollectStats()
        done: dict[str, list[Trajectory]] = {}
        thrown: dict[str, list[Mapping[str, Any]]] = {}
        open_ = list(plays)
        for attempt in range(self._rounds + 1):
            found = await self._inner.collect(open_, seed=seed + _OTHER_SEED * attempt)
            self.stats.add(self._inner.stats)
            again = []
            for play in open_:
                rows = [one for one in found if one.group == play.group]
                if attempt == self._rounds or self._keeps(rows):
                    done[play.group] = _told(rows, thrown.get(play.group, []))
                else:
                    thrown.setdefault(play.group, []).append(_fact(rows))
                    again.append(replace(play, task=self._other(play, seed, attempt)))
            open_ = again
            if not open_:
                break
        return [one for play in plays for one in done[play.group]]

    def _keeps(self, rows: Sequence[Trajectory]) -> bool:
        """The filter would let the group train; one without any reward is not for it to judge."""
        scored = [one for one in rows if one.reward is not None]
        if not scored:
            return True
        batch = build_batch(scored)
        for shaping in self._shaping:
            batch = replace(batch, rewards=batch.rewards + shaping.component(batch))
        return all(self._filter.apply(batch).keep_group.values())

    def _other(self, play: Play, seed: int, attempt: int) -> str:
        """Another task, from the group's name and the attempt."""
        others = [task for task in self._tasks if task != play.task] or self._tasks
        rng = np.random.default_rng(turn_seed(seed, play.group, -2, attempt))
        return others[int(rng.integers(len(others)))]


def _fact(rows: Sequence[Trajectory]) -> Mapping[str, Any]:
    return {"task": rows[0].task, "success": float(np.mean([solved(one) for one in rows]))}


def _told(rows: list[Trajectory], thrown: Sequence[Mapping[str, Any]]) -> list[Trajectory]:
    if not thrown or not rows:
        return rows
    metadata = frozen({**rows[0].metadata, "thrown_away": list(thrown)})
    return [replace(rows[0], metadata=metadata), *rows[1:]]
