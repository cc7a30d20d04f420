"""Checks of the final answer. What counts is the answer that the protocol read; without one every check scores 0."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from agenthub.config import ConfigModel
from agenthub.errors import TaskBroken
from agenthub.rewards.answers import accepted, number, same_text
from agenthub.rewards.arguments import check
from agenthub.rewards.matching import fullmatch
from agenthub.rewards.score import Context, Score
from agenthub.suites.task import Task

__all__ = ["exact", "numeric", "reasoning_gym", "regex"]

NO_ANSWER = Score(value=0.0, reason="no answer was given")
MAX_CHARS = 100_000
"""A longer answer is not matched against a pattern."""
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


class ExactArgs(ConfigModel):
    """Arguments of `exact`."""

    case: bool = True
    """False: upper and lower case are the same."""


class NumericArgs(ConfigModel):
    """Arguments of `numeric`."""

    abs: Tolerance = 0.0
    """Largest absolute difference."""
    rel: Tolerance = 0.0
    """Largest difference as a share of the expected value; either tolerance will do."""


class RegexArgs(ConfigModel):
    """Arguments of `regex`."""

    pattern: Annotated[str, AfterValidator(_pattern)]
    """Must match the whole answer, with white space at its ends dropped; `.` matches a line end too."""
    ignore_case: bool = False


class ReasoningGymArgs(ConfigModel):
    """Arguments of `reasoning_gym`: which entry the task is."""

    dataset: str
    config: dict[str, Any] = Field(default_factory=dict)
    seed: int
    size: int
    index: int


def _has_target(task: Task, args: ExactArgs) -> None:
    del args
    accepted(task)


def _has_number(task: Task, args: NumericArgs) -> None:
    del args
    for value in accepted(task):
        if number(value) is None:
            raise TaskBroken("the target is no number")


@check(ExactArgs, _has_target)
async def exact(context: Context, args: ExactArgs) -> Score:
    """1 where the answer is an accepted one, letter for letter but for white space."""
    if context.answer is None:
        return NO_ANSWER
    found = any(same_text(context.answer, str(expected), case=args.case) for expected in accepted(context.task))
    return Score(value=float(found), reason="" if found else "the answer is another one")


@check(NumericArgs, _has_number)
async def numeric(context: Context, args: NumericArgs) -> Score:
    """1 where the answer is one number, and nothing but one, within tolerance of an accepted one."""
    _has_number(context.task, args)
    if context.answer is None:
        return NO_ANSWER
    given = number(context.answer)
    if given is None:
        return Score(value=0.0, reason="the answer is not a number")
    # Floats become their shortest decimal, so that a tolerance of 0.01 is a hundredth.
    absolute, relative = number(args.abs) or 0, number(args.rel) or 0
    for value in map(number, accepted(context.task)):
        if value is not None and abs(given - value) <= max(absolute, relative * abs(value)):
            return Score(value=1.0)
    return Score(value=0.0, reason="the answer is another number")


@check(RegexArgs)
async def regex(context: Context, args: RegexArgs) -> Score:
    """1 where the pattern matches the whole answer."""
    if context.answer is None:
        return NO_ANSWER
    if len(context.answer) > MAX_CHARS:
        return Score(value=0.0, reason=f"the answer has more than {MAX_CHARS} characters")
    flags = re.DOTALL | (re.IGNORECASE if args.ignore_case else 0)
    found = await fullmatch(args.pattern, context.answer.strip(), flags)
    if found is None:
        return Score(value=0.0, reason="the pattern took too long on this answer")
    return Score(value=float(found), reason="" if found else "the answer does not match")


@check(ReasoningGymArgs)
async def reasoning_gym(context: Context, args: ReasoningGymArgs) -> Score:
    """The dataset's own `score_answer`, which may be partial."""
    if context.answer is None:
        return NO_ANSWER
    from agenthub.generators.reasoning import score

    return await asyncio.to_thread(score, args.dataset, args.config, args.seed, args.size, args.index, context.answer)
