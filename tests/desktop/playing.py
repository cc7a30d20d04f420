"""Playing a suite with its oracles and with who does nothing, several episodes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agenthub.episodes import Episode, Workbench
from agenthub.policies.scripted import ScriptedPolicy
from agenthub.records import Outcome, Trajectory
from agenthub.suites.task import Task
from agenthub.wire import Action

__all__ = ["played", "wrongs"]


async def played(task: Task, policy: ScriptedPolicy, bench: Workbench) -> Trajectory:
    """One episode to its end."""
    episode = Episode(task, bench, id=task.id, group="g", member=0)
    await episode.open()
    try:
        while not episode.done:
            await episode.step(Action(text=policy.act(episode.next_turn, "")), timeout_s=None, generation=None)
    finally:
        end = await episode.cancel()
    return end


async def wrongs(tasks: Sequence[Task], bench: Workbench, at_once: int) -> list[str]:
    """What is wrong with each task on which the oracle has not 1, or who does nothing not 0."""
    slots = asyncio.Semaphore(at_once)
    wrong: list[str] = []

    async def one(task: Task) -> None:
        for name, policy, wanted in (
            ("oracle", ScriptedPolicy.oracle(task.solution, task.key), 1.0),
            ("no-op", ScriptedPolicy.noop(), 0.0),
        ):
            async with slots:
                end = await played(task, policy, bench)
            if (end.outcome, end.reward) != (Outcome.OK, wanted):
                seen = end.turns[-1].observations[-1].text if end.turns and end.turns[-1].observations else ""
                wrong.append(f"{task.id}, {name}: {end.outcome} {end.reward} {end.reason} {seen}")

    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(one(task))
    return wrong
