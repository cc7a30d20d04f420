"""What comes in with a turn, read: the action, what is told of its tokens, and limits that a client lowers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agenthub.errors import UserError, WireError
from agenthub.records import Finish, Generation, ImageRef, floats, ints
from agenthub.renderer import Parsed, ParsedCall, TextProtocol
from agenthub.suites.task import TaskLimits
from agenthub.wire import Action, GenerationIn, LimitsIn

__all__ = ["generation_of", "lowered", "parse"]


def parse(protocol: TextProtocol, action: Action) -> Parsed:
    """An action as it was meant: calls and answer as given, or as the protocol reads them from the text."""
    if action.calls is not None:
        calls = tuple(ParsedCall(tool=call.tool, arguments=call.arguments) for call in action.calls)
        return Parsed(text=action.text or "", calls=calls)
    if action.answer is not None:
        return Parsed(text=action.text or "", answer=action.answer)
    return protocol.read(action.text or "")


def generation_of(told: GenerationIn | None) -> Generation | None:
    """The record of a generation that came with its tokens; None where only counts were told.

    Raises:
        WireError: `token_mismatch`: lengths, ranges or values do not fit together; `aborted_generation`.
    """
    if told is None:
        return None
    if told.finish is Finish.ABORT:
        raise WireError("aborted_generation", 422, "an aborted generation is not a step: sample the turn again")
    if told.ids is None and told.logprobs is None and told.prompt_ids is None:
        return None
    if told.ids is None or told.logprobs is None or told.prompt_ids is None:
        raise WireError("token_mismatch", 422, "generation: prompt_ids, ids and logprobs come together or not at all")
    for name, count, told_count in (
        ("prompt_ids", len(told.prompt_ids), told.prompt_tokens),
        ("ids", len(told.ids), told.completion_tokens),
    ):
        if count != told_count:
            raise WireError("token_mismatch", 422, f"generation.{name} has {count} tokens, the count says {told_count}")
    try:
        return Generation(
            policy=told.policy,
            prompt_ids=ints(told.prompt_ids),
            ids=ints(told.ids),
            logprobs=floats(told.logprobs),
            versions=((0, told.weight_version),) if told.ids else (),
            finish=told.finish,
            images=tuple(ImageRef(**image.model_dump()) for image in told.images),
        )
    except ValueError as error:
        raise WireError("token_mismatch", 422, str(error)) from None


def lowered(limits: TaskLimits, asked: LimitsIn | None) -> TaskLimits:
    """The task's limits, lower where a client asks for it. Raises UserError where it asks for more."""
    changes: dict[str, Any] = {}
    for name, value in asked.model_dump(exclude_none=True).items() if asked else ():
        allowed = getattr(limits, name)
        if value > allowed:
            raise UserError(f"limits.{name} is {value}; the task allows {allowed}")
        changes[name] = value
    return replace(limits, **changes)
