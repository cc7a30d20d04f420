"""Lint: plays every task with an oracle that must win and with idlers that must not, and names the holes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agenthub.episodes import Episode, Workbench
from agenthub.errors import TaskBroken, UserError
from agenthub.policies.scripted import ScriptedPolicy
from agenthub.records import Outcome, Trajectory, Turn
from agenthub.rewards.verify import verify
from agenthub.suites.task import Task
from agenthub.wire import Action

__all__ = ["Hole", "lint", "play", "won"]

ANSWERS = ("", "0", "None")
"""What a policy that knows nothing may answer; none of it may win."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """One way in which a task fails its author or its policy."""

    task: Task
    what: str


def won(trajectory: Trajectory, task: Task) -> bool:
    """True where the verifier gave all that it can give."""
    return trajectory.outcome.scored and trajectory.rewards.get("outcome", 0.0) >= task.verifier.scale * (1 - 1e-9)


async def play(task: Task, workbench: Workbench, act: Callable[[int], Action]) -> Trajectory:
    """One episode in process; `act` gives the action of a turn by its index.

    Raises:
        UserError: the task asks for what this machine does not have.
        HostFault: a sandbox could not be started.
    """
    episode = Episode(task, workbench, id="lint", group="lint", member=0)
    try:
        await episode.open()
        while not episode.done:
            await episode.step(act(episode.next_turn), timeout_s=None, generation=None)
    finally:
        trajectory = await episode.cancel()
    return trajectory


async def lint(
    tasks: Sequence[Task],
    workbench: Workbench,
    *,
    concurrency: int = 8,
    done: Callable[[Task], None] = lambda task: None,
) -> list[Hole]:
    """The holes of all tasks, in the order of the tasks. Raises HostFault where our side fails."""
    slots = asyncio.Semaphore(concurrency)

    async def one(task: Task) -> list[str]:
        async with slots:
            holes = await _holes(task, workbench)
        done(task)
        return holes

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(task)) for task in tasks]
    return [Hole(task=task, what=what) for task, work in zip(tasks, running, strict=True) for what in work.result()]


async def _holes(task: Task, workbench: Workbench) -> list[str]:
    holes: list[str] = []
    try:
        holes += await _oracle_holes(task, workbench)
        noop = ScriptedPolicy.noop()
        idle = await play(task, workbench, lambda turn: Action(text=noop.act(turn, "")))
        if won(idle, task):
            holes.append("a policy that does nothing wins")
        for answer in ANSWERS:
            if await _answer_wins(task, workbench, answer):
                holes.append(f"the answer {answer!r} wins")
    except UserError as error:
        holes.append(f"cannot be played here: {error}")
    return holes


async def _answer_wins(task: Task, workbench: Workbench, answer: str) -> bool:
    """True where the verifier takes `answer` alone, though it is not the expected one."""
    expected = task.target if isinstance(task.target, tuple) else (task.target,)
    if task.target is not None and answer in map(str, expected):
        return False
    turn = Turn(index=0, generation=None, text="", answer=answer)
    try:
        verdict = await verify(task, (turn,), answer, workbench.code_box)
    except TaskBroken:
        # The oracle's episode has said so, with the place.
        return False
    return verdict.outcome >= task.verifier.scale * (1 - 1e-9)


async def _oracle_holes(task: Task, workbench: Workbench) -> list[str]:
    if not task.solution:
        return ["has no solution, so nothing shows that it can be won"]
    oracle = ScriptedPolicy.oracle(task.solution, task.key)
    end = await play(task, workbench, lambda turn: Action(text=oracle.act(turn, "")))
    if end.outcome is Outcome.ENV_FAULT:
        return [f"is broken: {end.reason}"]
    if end.outcome is Outcome.INFRA_FAULT:
        return [f"our side failed while the oracle played: {end.reason}"]
    if not won(end, task):
        failed = next((turn for turn in end.turns if turn.parse_error), None)
        why = f"turn {failed.index}: {failed.parse_error}" if failed else end.reason or f"it stopped: {end.stop}"
        return [f"the oracle does not win (reward {end.reward:g}; {why})"]
    if len(end.turns) < len(task.solution):
        return [f"the episode ended after {len(end.turns)} of the oracle's {len(task.solution)} turns"]
    return []
