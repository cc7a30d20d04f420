"""The check `lean`: the verdict of the Lean sandbox's judge on what the episode proved."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from agenthub.config import ConfigModel
from agenthub.errors import HostFault, TaskBroken, UserError
from agenthub.records import frozen
from agenthub.rewards.arguments import check
from agenthub.rewards.score import Context, Score
from agenthub.sandbox import SandboxSpec
from agenthub.suites.task import Task

__all__ = ["LeanArgs", "lean"]


class LeanArgs(ConfigModel):
    """Arguments of `lean`."""

    candidate: Literal["answer", "last_code"] = "answer"
    """Where the proof is: the final answer, or the `code` of the episode's last call."""
    sandbox: str = "lean"
    """Registry name of the sandbox kind that judges."""
    challenge: dict[str, Any] = Field(default_factory=dict)
    """What is to be proved; the `config` of the task's Lean tool where empty."""
    seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 120.0
    """For compiling the proof; waiting and the replay come on top."""


def _spec(task: Task, args: LeanArgs) -> SandboxSpec:
    """The judge's spec. Raises TaskBroken where the task says nowhere what is to be proved."""
    for tool in task.tools:
        if tool.uses == args.sandbox and (tool.spec.params or args.challenge):
            return replace(tool.spec, params=frozen(args.challenge)) if args.challenge else tool.spec
    if not args.challenge:
        raise TaskBroken("nothing is to be proved: give the Lean tool a config, or the check a challenge")
    return SandboxSpec(params=frozen(args.challenge))


def _has_challenge(task: Task, args: LeanArgs) -> None:
    if "statement" not in _spec(task, args).params:
        raise TaskBroken("the Lean challenge has no statement")


def _submission(context: Context, args: LeanArgs) -> str | None:
    if args.candidate == "answer":
        return context.answer
    codes = (call.arguments.get("code") for turn in reversed(context.turns) for call in reversed(turn.calls))
    return next((code for code in codes if isinstance(code, str)), None)


@check(LeanArgs, _has_challenge)
async def lean(context: Context, args: LeanArgs) -> Score:
    """1 where the kernel took the proof in a process that never saw it; a verdict that was only read scores 0.

    Raises:
        TaskBroken: the challenge is none, or does not compile.
        HostFault: our side failed, again after being tried again.
    """
    submission = _submission(context, args)
    if submission is None:
        return Score(value=0.0, reason="there is no proof")
    if context.workspace is None and args.challenge:
        raise TaskBroken("the check `lean` needs the episode's sandboxes")
    if context.workspace is None:
        return Score(value=0.0, reason="an answer alone, without its episode, is not judged")
    try:
        box = await context.workspace.box(args.sandbox, _spec(context.task, args))
        told, _ = await box.run(submission, stdin=b"", timeout_s=args.seconds)
    except UserError as error:
        raise TaskBroken(str(error)) from error
    verdict = told.value
    if verdict["reason"] == "infra_error":
        raise HostFault(f"the judge failed: {verdict['detail']}")
    if verdict["accepted"] is True and verdict["assurance"] == "replayed":
        return Score(value=1.0)
    return Score(value=0.0, reason=f"{verdict['reason']}: {verdict['detail']}"[:300])
