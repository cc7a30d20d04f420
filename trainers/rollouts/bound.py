"""A strategy bound to a suite: what its tasks allow, their solutions, and whether they can be forked at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agenthub.client import Hub
from agenthub.errors import UserError
from agenthub.records import Ints, frozen, ints
from agenthub.registry import registry
from agenthub.renderers.safe import HFTokenizer, Seams
from agenthub.rollout import Growth, Play
from agenthub.suites.load import load_suites
from agenthub.trainers.rollouts.plain import Fixed

__all__ = ["Bound", "bind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a collector takes: the strategy with the facts of each task, by id."""

    strategy: Fixed
    limits: Mapping[str, int]
    """Most turns that a task allows."""
    oracles: Mapping[str, tuple[Ints, ...]]
    """Token ids of each turn of a task's solution."""

    def planned(self, play: Play) -> Play:
        """The play with the update's horizon, where that is less than the task's own, and the task's solution."""
        horizon = self.strategy.horizon(play.update)
        turns = None if horizon is None else min(horizon, self.limits.get(play.task, horizon))
        return replace(play, max_turns=turns, oracle=self.oracles.get(play.task, ()))

    def grow(self, play: Play) -> Growth:
        """The growth of one group."""
        return self.strategy.grow(play)


async def bind(
    hub: Hub, suite: str, split: str, name: str, strategy: Fixed, tokenizer: HFTokenizer, paths: Sequence[Path] = ()
) -> Bound:
    """Bind a strategy to a split of a suite.

    Args:
        name: the strategy's, for messages. paths: suites of this machine, where it needs their solutions; the packaged
            ones where there is none.

    Raises:
        UserError: the suite's episodes cannot be forked, or it has no solution, and the strategy needs that.
        WireError: there is no such suite.
    """
    rows = await hub.tasks(suite, split)
    if strategy.forks and rows:
        await _check_forks(hub, suite, str(rows[0]["id"]), name)
    oracles: Mapping[str, tuple[Ints, ...]] = frozen()
    if strategy.oracles:
        seams = Seams(tokenizer)
        tasks = load_suites(list(paths))[suite].tasks
        oracles = {task.id: tuple(ints(seams.plain(text)) for text in task.solution) for task in tasks if task.solution}
        if not any(str(row["id"]) in oracles for row in rows):
            raise UserError(
                f"strategy {name!r} needs solutions, and no task of suite {suite!r} has one on this machine"
            )
    limits = {str(row["id"]): int(row["limits"]["max_turns"]) for row in rows}
    return Bound(strategy=strategy, limits=limits, oracles=oracles)


async def _check_forks(hub: Hub, suite: str, task: str, name: str) -> None:
    """Ask an episode of the suite how it can be copied.

    Raises:
        UserError: it cannot.
    """
    (probe,) = await hub.create(suite, task, group="probe")
    try:
        way = str(probe.info.get("fork", "no"))
    finally:
        await probe.close()
    if way == "no":
        names = registry("rollout").names()
        others = [other for other in names if not registry("rollout").load(other).forks]
        raise UserError(
            f"strategy {name!r} forks episodes, and those of suite {suite!r} can be neither copied nor replayed "
            f"(fork: {way}); take a suite whose sandboxes say native, stateless or replay, or one of the strategies "
            f"{', '.join(others)}"
        )
