"""The check `world_score`: what the world of a task says of itself once the episode is over."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agenthub.config import ConfigModel
from agenthub.errors import BoxLost, TaskBroken
from agenthub.rewards.arguments import check
from agenthub.rewards.score import Context, Score

__all__ = ["WorldScoreArgs", "world_score"]


class WorldScoreArgs(ConfigModel):
    """Arguments of `world_score`."""

    sandbox: str = "browser"
    """Registry name of the sandbox kind whose world is asked."""
    fact: str = "score"
    """Which of its facts, a number."""
    least: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """The episode succeeds where the fact is this or more; there is no partial credit."""


@check(WorldScoreArgs)
async def world_score(context: Context, args: WorldScoreArgs) -> Score:
    """1.0 where the world's own score is high enough, else 0.0; a world that is lost scores 0."""
    if context.workspace is None:
        raise TaskBroken("world_score needs the episode's sandboxes")
    try:
        facts = await context.workspace.facts(args.sandbox)
    except BoxLost as lost:
        return Score(value=0.0, reason=str(lost))
    value = facts.get(args.fact)
    if value is None:
        return Score(value=0.0, reason=str(facts.get("reason") or "the task was not finished"))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TaskBroken(f"the world's fact {args.fact!r} is {value!r}, not a number")
    won = value >= args.least
    told = facts.get("reason")
    return Score(value=float(won), reason=f"{args.fact} {value:g}" + (f": {told}" if told else ""))
