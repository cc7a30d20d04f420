"""The oracle wins, and in the same way when it plays again; an idler and constant answers earn nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agenthub.episodes import Workbench
from agenthub.errors import TaskBroken
from agenthub.policies.scripted import ScriptedPolicy
from agenthub.records import Outcome, Trajectory, Turn
from agenthub.replay import difference
from agenthub.rewards.answers import number, same_text
from agenthub.rewards.verify import verify
from agenthub.suites.lint.playing import PATIENCE, full, play, won
from agenthub.suites.task import Task
from agenthub.wire import Action

__all__ = ["ANSWERS", "Oracle", "answer_wins", "constant_holes", "idle_holes", "oracle_of"]

ANSWERS = ("", "0", "1", "-1", "None", "yes", "no", "true", "A")
"""What a policy that knows nothing may answer; none of it may win, but where it is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """What came of a task's own solution."""

    holes: tuple[str, ...]
    answer: str | None = None
    """Its final answer, where it won."""


async def oracle_of(task: Task, workbench: Workbench, *, again: bool) -> Oracle:
    """Play the solution; with `again` twice, and the two must not differ. Raises as `play` does.

    A canary, which says so in its metadata, has none and must not be won by anything else that lint plays either.
    """
    if task.metadata.get("canary") is True:
        return Oracle(holes=("is a canary, and yet has a solution",) if task.solution else ())
    if not task.solution:
        return Oracle(holes=("has no solution, so nothing shows that it can be won",))
    first = await _solved(task, workbench)
    holes = _lost(first, task)
    if not holes and again:
        second = await _solved(task, workbench)
        changed = difference(first, second) if task.deterministic else None
        if not won(second, task):
            holes.append(f"the oracle won once and not again ({second.reason or second.stop})")
        elif changed is not None:
            holes.append(f"is not deterministic though it says so: played again, the oracle differs: {changed}")
    return Oracle(holes=tuple(holes), answer=first.turns[-1].answer if first.turns and not holes else None)


async def _solved(task: Task, workbench: Workbench) -> Trajectory:
    oracle = ScriptedPolicy.oracle(task.solution, task.key)
    turns = len(task.solution) + PATIENCE
    return await play(task, workbench, lambda turn: Action(text=oracle.act(turn, "")), turns=turns)


def _lost(end: Trajectory, task: Task) -> list[str]:
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


async def idle_holes(task: Task, workbench: Workbench) -> list[str]:
    """What a policy that does nothing earns. Raises as `play` does."""
    noop = ScriptedPolicy.noop()
    idle = await play(task, workbench, lambda turn: Action(text=noop.act(turn, "")), turns=PATIENCE)
    if won(idle, task):
        return ["a policy that does nothing wins"]
    return [f"a policy that does nothing earns {idle.reward:g}"] if idle.reward and idle.reward > 0 else []


async def constant_holes(task: Task, workbench: Workbench, right: Iterable[str]) -> list[str]:
    """Which of `ANSWERS` win though they are not `right`."""
    expected = list(right)
    wrong = [answer for answer in ANSWERS if not any(_same(answer, it) for it in expected)]
    winning = [repr(answer) for answer in wrong if await answer_wins(task, workbench, answer)]
    if not winning:
        return []
    return [f"the answer {winning[0]} wins" if len(winning) == 1 else f"the answers {', '.join(winning)} win"]


def _same(left: str, right: str) -> bool:
    value = number(left)
    return same_text(left, right, case=False) or (value is not None and value == number(right))


async def answer_wins(task: Task, workbench: Workbench, answer: str) -> bool:
    """True where the verifier gives everything for `answer` alone."""
    turn = Turn(index=0, generation=None, text="", answer=answer)
    try:
        verdict = await verify(task, (turn,), answer, workbench.code_box)
    except TaskBroken:
        # The oracle's episode has said so, with the place.
        return False
    return full(verdict.outcome, task)
