"""How an episode ends: the outcome component that its verifier gives, and its record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agenthub.episodes.boxes import Boxes
from agenthub.episodes.workbench import Workbench
from agenthub.errors import BoxLost, HostFault, TaskBroken
from agenthub.records import Outcome, Stop, Trajectory, Turn, frozen
from agenthub.rewards.score import Workspace
from agenthub.rewards.verify import verify
from agenthub.suites.task import Task

__all__ = ["Ending", "lost_by", "outcome_reward", "record_of"]


@dataclass(slots=True)
class Ending:
    """How the episode ended, as far as the current turn knows."""

    stop: Stop
    outcome: Outcome = Outcome.OK
    reason: str = ""


async def outcome_reward(
    task: Task, turns: tuple[Turn, ...], ending: Ending, boxes: Boxes, workbench: Workbench, verify_s: float
) -> float | None:
    """The outcome component; None where the episode is not scored. A fault is written into `ending`."""
    if ending.outcome is Outcome.MODEL_FAULT:
        return 0.0
    if ending.outcome is not Outcome.OK:
        return None
    try:
        async with asyncio.timeout(verify_s):
            workspace = Workspace(changes=boxes.changes, box=workbench.box, facts=boxes.facts)
            verdict = await verify(task, turns, turns[-1].answer, workbench.code_box, workspace)
    except TimeoutError:
        # The checks bound each piece of candidate code; what is slow as a whole is the candidate's doing.
        ending.reason = f"verification took more than {verify_s} s"
        return 0.0
    except HostFault as fault:
        ending.outcome, ending.reason = Outcome.INFRA_FAULT, str(fault)
        return None
    except TaskBroken as broken:
        ending.outcome, ending.reason = Outcome.ENV_FAULT, str(broken)
        return None
    ending.reason = verdict.reason
    return verdict.outcome


def lost_by(why: BoxLost | HostFault) -> Ending:
    """The end of an episode whose sandbox is gone: the model's doing, or ours."""
    outcome = Outcome.INFRA_FAULT if isinstance(why, HostFault) else Outcome.MODEL_FAULT
    return Ending(Stop.SANDBOX_LOST, outcome, str(why))


def record_of(task: Task, ending: Ending, turns: tuple[Turn, ...]) -> Trajectory:
    """The trajectory of an episode that ended so, without its place in a group."""
    scored = ending.outcome.scored and ending.stop is not Stop.CANCELLED
    totals: dict[str, float] = {}
    for turn in turns:
        for name, value in turn.rewards.items():
            totals[name] = totals.get(name, 0.0) + value
    return Trajectory(
        task=task.key,
        group="",
        member=0,
        turns=turns,
        stop=ending.stop,
        outcome=ending.outcome,
        rewards=frozen(totals),
        reward=float(sum(turn.reward for turn in turns)) if scored else None,
        reason=ending.reason,
        metadata=task.metadata,
    )
