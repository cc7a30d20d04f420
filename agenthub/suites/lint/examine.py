"""Lint over the tasks of a suite: every task with the oracle and an idler, a share of them with every technique.

Cheats fare alike on tasks that are graded alike, so they play at most `Plan.episodes` tasks: the first of each kind,
the rest spread evenly. What only shows over many tasks comes last: a policy that acts at random, one answer for all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from agenthub.episodes import Workbench
from agenthub.errors import UserError
from agenthub.policies.scripted_cheats import random_script
from agenthub.suites.lint.cheating import CONSTANT, RANDOM, Played, allowed, cheat, seen_of, techniques
from agenthub.suites.lint.oracle import answer_wins, constant_holes, idle_holes, oracle_of
from agenthub.suites.lint.playing import Hole, acting, won
from agenthub.suites.task import Task

__all__ = ["Plan", "Report", "Tally", "examine", "lint", "luck"]

_SHARE_OF_LUCK = 0.05
_FEWEST = 4
"""Tasks from which on one answer for more than half of them is a hole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is played."""

    episodes: int = 24
    """Tasks on which the cheats play, and episodes of the policy that acts at random; of each suite."""
    seed: int = 0
    """Of the policy that acts at random."""
    jobs: int = 8
    """Tasks at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One technique over a suite."""

    technique: str
    does: str
    tasks: int
    episodes: int
    wins: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What lint found."""

    holes: tuple[Hole, ...]
    """In the order of the tasks; what shows only over many comes last."""
    tallies: tuple[Tally, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    holes: list[Hole]
    answer: str | None
    played: Played


def luck(episodes: int) -> int:
    """How many of so many episodes a policy that acts at random may win: one in twenty, and one in any case."""
    return max(1, int(_SHARE_OF_LUCK * episodes))


async def lint(tasks: Sequence[Task], workbench: Workbench, plan: Plan = Plan()) -> list[Hole]:
    """The holes of the tasks, as `examine` finds them."""
    return list((await examine(tasks, workbench, plan)).holes)


async def examine(
    tasks: Sequence[Task],
    workbench: Workbench,
    plan: Plan = Plan(),
    *,
    done: Callable[[Task], None] = lambda task: None,
) -> Report:
    """Play the tasks of one suite as the module says.

    Raises:
        HostFault: our side failed.
    """
    slots, sampled = asyncio.Semaphore(plan.jobs), _sample(tasks, plan.episodes)

    async def one(task: Task) -> _Found:
        async with slots:
            found = await _task(task, workbench, cheated=task.key in sampled)
        done(task)
        return found

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(task)) for task in tasks]
    found = [it.result() for it in running]
    holes = [hole for it in found for hole in it.holes]
    whole = [task for task, it in zip(tasks, found, strict=True) if not it.holes]
    by_luck, lucky = await _random(whole, workbench, plan, slots)
    holes += lucky + await _one_for_all(tasks, workbench, [it.answer for it in found])
    return Report(holes=tuple(holes), tallies=_tallies([it.played for it in found] + by_luck))


def _sample(tasks: Sequence[Task], count: int) -> frozenset[str]:
    """Keys of the tasks that cheats play: one of each kind, then spread evenly."""
    kinds: dict[object, Task] = {}
    for task in tasks:
        kinds.setdefault(_kind(task), task)
    chosen = list(kinds.values())
    chosen += [tasks[index * len(tasks) // count] for index in range(count)] if count < len(tasks) else list(tasks)
    return frozenset(list(dict.fromkeys(task.key for task in chosen))[: max(count, len(kinds))])


def _kind(task: Task) -> object:
    checks = tuple((check.uses, tuple(sorted(check.args))) for check in task.verifier.checks)
    return checks, task.verifier.combine, tuple(tool.uses for tool in task.tools), task.protocol


async def _task(task: Task, workbench: Workbench, *, cheated: bool) -> _Found:
    played, holes = Played(), list[Hole]()
    answer: str | None = None

    def found(technique: str, texts: Sequence[str]) -> None:
        holes.extend(Hole(task=task, technique=technique, what=what) for what in texts)

    try:
        accepted = allowed(task)
        oracle = await oracle_of(task, workbench, again=cheated)
        answer = oracle.answer
        found("oracle", oracle.holes)
        found("noop", await idle_holes(task, workbench))
        if CONSTANT not in accepted:
            right = [str(it) for it in (*_targets(task), answer) if it is not None]
            found(CONSTANT, await constant_holes(task, workbench, right))
        # A check that a constant passes, every technique passes: once is enough to say it.
        if cheated and not holes:
            played = await cheat(task, workbench)
            holes += played.holes
    except UserError as error:
        found("oracle", [f"cannot be played here: {error}"])
    return _Found(holes=holes, answer=answer, played=played)


def _targets(task: Task) -> tuple[object, ...]:
    return task.target if isinstance(task.target, tuple) else (task.target,)


async def _random(
    tasks: Sequence[Task], workbench: Workbench, plan: Plan, slots: asyncio.Semaphore
) -> tuple[list[Played], list[Hole]]:
    """Episodes of a policy that acts at random, spread over the tasks; a hole where it wins more than by luck."""
    open_to = [task for task in tasks if RANDOM not in allowed(task)]

    async def one(index: int) -> tuple[Task, bool]:
        task = open_to[index * len(open_to) // plan.episodes % len(open_to)]
        random = Random(f"{plan.seed}:{task.key}:{index}")
        async with slots:
            end = await acting(task, workbench, random_script(seen_of(task), random))
        return task, won(end, task)

    if not open_to:
        return [], []
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(index)) for index in range(plan.episodes)]
    results = [it.result() for it in running]
    winners = [task for task, win in results if win]
    played = {task.key: Played() for task, _ in results}
    for task, win in results:
        played[task.key].episodes[RANDOM] += 1
        played[task.key].wins[RANDOM] += win
    if len(winners) <= luck(plan.episodes):
        return list(played.values()), []
    often = Counter(task.key for task in winners).most_common(1)[0][0]
    worst = next(task for task in winners if task.key == often)
    what = f"a policy that acts at random wins {len(winners)} of {plan.episodes} episodes; {luck(plan.episodes)} may be"
    return list(played.values()), [Hole(task=worst, technique=RANDOM, what=what)]


async def _one_for_all(tasks: Sequence[Task], workbench: Workbench, answers: Sequence[str | None]) -> list[Hole]:
    """A hole where the oracle's commonest answer, given to every task, wins more than half of them."""
    given = Counter(answer for answer in answers if answer)
    if len(tasks) < _FEWEST or not given or given.most_common(1)[0][1] <= len(tasks) / 2:
        return []
    answer = given.most_common(1)[0][0]
    winners = [task for task in tasks if CONSTANT not in allowed(task) and await answer_wins(task, workbench, answer)]
    if len(winners) <= len(tasks) / 2:
        return []
    what = f"always answering {answer!r} wins {len(winners)} of the suite's {len(tasks)} tasks"
    return [Hole(task=winners[0], technique=CONSTANT, what=what)]


def _tallies(played: Sequence[Played]) -> tuple[Tally, ...]:
    rows = []
    for name, does in techniques().items():
        tasks = sum(name in it.episodes for it in played)
        episodes = sum(it.episodes[name] for it in played)
        wins = sum(it.wins[name] for it in played)
        if episodes:
            rows.append(Tally(technique=name, does=does, tasks=tasks, episodes=episodes, wins=wins))
    return tuple(rows)
