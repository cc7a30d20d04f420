"""One episode in process, and what counts as won."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agenthub.episodes import Episode, Workbench
from agenthub.records import Trajectory
from agenthub.suites.task import Task
from agenthub.wire import Action, LimitsIn

__all__ = ["PATIENCE", "Hole", "acting", "full", "play", "won"]

PATIENCE = 8
"""Turns that a policy may go on after the last thing that it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """One way in which a task fails its author or its policy."""

    task: Task
    what: str
    technique: str = "oracle"
    """Who found it: a policy, or a technique of the cheating one."""


def full(outcome: float, task: Task) -> bool:
    """True where an outcome component is all that the verifier can give."""
    return outcome >= task.verifier.scale * (1 - 1e-9)


def won(trajectory: Trajectory, task: Task) -> bool:
    """True where the verifier gave all that it can give."""
    return trajectory.outcome.scored and full(trajectory.rewards.get("outcome", 0.0), task)


async def play(
    task: Task, workbench: Workbench, act: Callable[[int], Action], *, turns: int | None = None
) -> Trajectory:
    """One episode in process; `act` gives the action of a turn by its index.

    Args:
        turns: after so many the episode is out of turns, where the task allows more.

    Raises:
        UserError: the task asks for what this machine does not have.
        HostFault: a sandbox could not be started.
    """
    limits = LimitsIn(max_turns=turns) if turns is not None and turns < task.limits.max_turns else None
    episode = Episode(task, workbench, id="lint", group="lint", member=0, limits=limits)
    try:
        await episode.open()
        while not episode.done:
            await episode.step(act(episode.next_turn), timeout_s=None, generation=None)
    finally:
        trajectory = await episode.cancel()
    return trajectory


async def acting(task: Task, workbench: Workbench, script: tuple[Action, ...]) -> Trajectory:
    """An episode in which the actions are played in order, and then nothing. Raises as `play` does."""
    return await play(
        task,
        workbench,
        lambda turn: script[turn] if turn < len(script) else Action(text=""),
        turns=len(script) + PATIENCE,
    )
