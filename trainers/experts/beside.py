"""Experts beside what the policy plays: a collector around the policy's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agenthub.client import Hub
from agenthub.errors import ConfigError, UserError
from agenthub.records import Trajectory
from agenthub.renderer import Renderer
from agenthub.rollout import CollectStats, Play, turn_seed
from agenthub.suites.load import load_suites
from agenthub.trainers.experts.config import ORACLE, OWN, ExpertsConfig
from agenthub.trainers.experts.library import (
    Followed,
    Library,
    Script,
    Vocabulary,
    as_expert,
    read_library,
    scripts_of,
    solved,
)
from agenthub.trainers.experts.scripted import ScriptPlayer
from agenthub.trainers.flow import Collects

__all__ = ["Experts", "WithExperts", "open_experts", "open_library", "solutions"]


def solutions(suite: str, paths: Sequence[Path] = ()) -> dict[str, tuple[str, ...]]:
    """The solution of each task of a suite on this machine, by `suite/task-id`; tasks without one are left out.

    Raises:
        UnknownName, ConfigError: the suite is not here.
    """
    return {task.key: tuple(task.solution) for task in load_suites(list(paths))[suite].tasks if task.solution}


def open_library(
    config: ExpertsConfig,
    *,
    suite: str,
    train: Sequence[str],
    run: Path,
    tasks: Sequence[Path],
    vocabulary: Vocabulary,
) -> Library:
    """The library that a recipe names.

    Args:
        train: ids of the tasks that the run trains on; what is held out is not learned from.
        run: the run's folder. tasks: suites of the run's own.

    Raises:
        UserError, ConfigError: there is no expert, or the file is of another tokenizer.
    """
    keys = [f"{suite}/{task}" for task in train]
    if config.source == OWN:
        if config.only:
            raise UserError("experts.source is own: with experts.only the run would never play anything to learn from")
        return Followed(run / "trajectories.jsonl", capacity=config.capacity, only_solved=config.solved)
    if config.source != ORACLE:
        return read_library(Path(config.source), vocabulary, only_solved=config.solved, tasks=set(keys))
    try:
        library = scripts_of(solutions(suite, tasks), keys)
    except ConfigError as error:
        raise UserError(f"experts.source is oracle, and suite {suite!r} is not on this machine: {error}") from error
    if not library.rows:
        raise UserError(f"experts.source is oracle, and no task of suite {suite!r} has a solution")
    return library


class Plays(Protocol):
    """`ScriptPlayer`, or a fake."""

    stats: CollectStats

    async def play(self, scripts: Mapping[str, Script]) -> dict[str, Trajectory]:
        """Trajectories of scripts, by group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A library, how it is used, and who gives its scripts their tokens."""

    config: ExpertsConfig
    library: Library
    player: Plays

    def known(self, suite: str, train: Sequence[str]) -> list[str]:
        """Of these tasks the ones to train on: all, or where the experts alone train, those that have one.

        Raises:
            UserError: none has one.
        """
        if not self.config.only or self.config.match == "any":
            return list(train)
        found = [task for task in train if f"{suite}/{task}" in self.library.tasks()]
        if not found:
            raise UserError(f"no task of suite {suite!r} that is trained on has an expert")
        return found

    def beside(self, inner: Collects) -> WithExperts:
        """A collector that adds experts to what `inner` collects."""
        return WithExperts(inner, self)


class WithExperts:
    """Collects groups, and puts experts into each of them as further members."""

    def __init__(self, inner: Collects, experts: Experts) -> None:
        self._inner, self._experts = inner, experts
        self.stats = CollectStats()

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """What the policy plays, and the experts after it, group by group.

        Raises:
            UserError: the experts alone train, and none of them solves its task any more.
            HostFault, HubUnreachable, WireError: as the collectors raise them.
        """
        config = self._experts.config
        fresh = [] if config.only else await self._inner.collect(plays, seed=seed)
        self.stats = CollectStats() if config.only else self._inner.stats
        experts = await self._of(plays, fresh, seed)
        if config.only and not any(experts.values()):
            raise UserError("no expert solves its task here; were its trajectories recorded on another suite?")
        return [
            one
            for play in plays
            for one in [*(other for other in fresh if other.group == play.group), *experts[play.group]]
        ]

    async def _of(
        self, plays: Sequence[Play], fresh: Sequence[Trajectory], seed: int
    ) -> Mapping[str, list[Trajectory]]:
        """The experts of each group."""
        config, library = self._experts.config, self._experts.library
        library.refresh()
        picked = {}
        for play in plays:
            task = f"{play.suite}/{play.task}" if config.match == "task" else None
            rows = library.pick(task, config.per_group, turn_seed(seed, play.group, -1, 0))
            picked.update({(play.group, place): row for place, row in enumerate(rows)})
        played = await self._played({key: row for key, row in picked.items() if isinstance(row, Script)})
        found: dict[str, list[Trajectory]] = {play.group: [] for play in plays}
        members: Collection[tuple[str, int]] = {(one.group, one.member) for one in fresh}
        for (group, place), row in picked.items():
            trajectory = played.get((group, place)) if isinstance(row, Script) else row
            if trajectory is not None and (solved(trajectory) or not config.solved):
                next_member = 1 + max((member for name, member in members if name == group), default=-1)
                found[group].append(as_expert(trajectory, group, next_member + place))
        return found

    async def _played(self, scripts: Mapping[tuple[str, int], Script]) -> dict[tuple[str, int], Trajectory]:
        """Trajectories of the scripts that the hub could play and score."""
        names = {f"{group}/expert-{place}": (group, place) for group, place in scripts}
        player = self._experts.player
        ended = await player.play({name: scripts[key] for name, key in names.items()})
        self.stats.environment_s += player.stats.environment_s
        return {names[name]: one for name, one in ended.items() if one.reward is not None}


def open_experts(
    config: ExpertsConfig,
    *,
    suite: str,
    train: Sequence[str],
    run: Path,
    tasks: Sequence[Path],
    hub: Hub,
    tokenizer: Any,
    renderer: Renderer,
    native: bool,
) -> Experts:
    """The experts of a run; arguments as those of `open_library` and `ScriptPlayer`.

    Raises:
        UserError, ConfigError: there is no expert, or the file is of another tokenizer.
    """
    vocabulary = Vocabulary(
        size=len(tokenizer),
        text=lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False)),
        stop_ids=renderer.stop_ids,
    )
    library = open_library(config, suite=suite, train=train, run=run, tasks=tasks, vocabulary=vocabulary)
    player = ScriptPlayer(hub, tokenizer, renderer, native=native)
    return Experts(config=config, library=library, player=player)
