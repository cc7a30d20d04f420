"""The verifier: runs a task's checks on a finished episode and combines them into the `outcome` component."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agenthub.errors import TaskBroken, UserError
from agenthub.records import Turn
from agenthub.registry import registry
from agenthub.rewards.score import Context, Score, Verdict, Workspace
from agenthub.sandbox import CodeBox
from agenthub.suites.task import Check, Task

__all__ = ["combine", "verify"]


async def verify(
    task: Task,
    turns: tuple[Turn, ...],
    answer: str | None,
    code_box: Callable[[str], Awaitable[CodeBox]],
    workspace: Workspace | None = None,
) -> Verdict:
    """Score a finished episode.

    The checks run one after the other, in the task's order; a required check that does not score 1 ends it with 0.

    Args:
        answer: the final answer as the protocol read it; None where there is none.
        code_box: gives a fresh grading box of a sandbox kind.
        workspace: the episode's sandboxes, for checks that grade what it changed.

    Raises:
        TaskBroken: the task cannot be graded as written: no check, bad arguments, tests that do not load, no box of the
            kind that they need.
        HostFault: our side failed.
    """
    if not task.verifier.checks:
        raise TaskBroken(f"{task.place or task.key}: the verifier has no checks")
    context = Context(task=task, turns=turns, answer=answer, code_box=code_box, workspace=workspace)
    scores: list[Score] = []
    for check in task.verifier.checks:
        score = await _score(check, context)
        if check.required and score.value < 1.0:
            return Verdict(outcome=0.0, reason=f"{check.id}: {score.reason or 'required, and not passed'}")
        scores.append(score)
    value = combine(task.verifier.combine, [check.weight for check in task.verifier.checks], scores)
    reasons = [f"{check.id}: {s.reason}" for check, s in zip(task.verifier.checks, scores, strict=True) if s.reason]
    return Verdict(outcome=value * task.verifier.scale, reason="; ".join(reasons))


async def _score(check: Check, context: Context) -> Score:
    task = context.task
    try:
        run = registry("check").load(check.uses, task.place)
        score = await run(context, check.args)
    except (TaskBroken, UserError) as error:
        raise TaskBroken(f"{task.place or task.key}: check {check.id!r}: {error}") from error
    if not isinstance(score, Score):
        raise TaskBroken(f"{task.place or task.key}: check {check.id!r} gave {type(score).__name__}, not a Score")
    return score


def combine(how: str, weights: Sequence[float], scores: Sequence[Score]) -> float:
    """One value in [0, 1] from the scores, which are one or more.

    weighted: sum(w s) / sum(w). mean, min: of the scores. and: 1 where every score is 1. or: 1 where one is. first: the
    first score that is above 0, else 0.

    Raises:
        TaskBroken: `how` is not known, or the weights are all 0.
    """
    values = [score.value for score in scores]
    if how == "weighted":
        if not sum(weights) > 0:
            raise TaskBroken("the verifier's weights sum to 0")
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    if how == "mean":
        return sum(values) / len(values)
    if how == "min":
        return min(values)
    if how == "and":
        return float(min(values) >= 1.0)
    if how == "or":
        return float(max(values) >= 1.0)
    if how == "first":
        return next((value for value in values if value > 0), 0.0)
    raise TaskBroken(f"no way to combine checks is named {how!r}")
