"""Checks with typed arguments: the model of `args` beside the body, so that loading refuses what cannot fit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from agenthub.config import ConfigModel
from agenthub.errors import TaskBroken
from agenthub.rewards.score import Context, Score
from agenthub.suites.task import Task

__all__ = ["TypedCheck", "check"]

A = TypeVar("A", bound=ConfigModel)


@dataclass(frozen=True, slots=True)
class TypedCheck(Generic[A]):
    """A check as the registry gives it."""

    model: type[A]
    """What `args` must fit."""
    body: Callable[[Context, A], Awaitable[Score]]
    inspect: Callable[[Task, A], None]
    """Raises TaskBroken where the task cannot be graded with these arguments; runs when the suite is loaded."""

    async def __call__(self, context: Context, args: Mapping[str, Any]) -> Score:
        """Run the check.

        Raises:
            TaskBroken: `args` do not fit, or what the check itself says.
            HostFault: our side failed.
        """
        try:
            typed = self.model.model_validate(dict(args))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TaskBroken(f"args.{where}: {first['msg']}") from error
        return await self.body(context, typed)


def check(
    model: type[A], inspect: Callable[[Task, A], None] = lambda task, args: None
) -> Callable[[Callable[[Context, A], Awaitable[Score]]], TypedCheck[A]]:
    """Make a check of a body that takes `model`."""
    return lambda body: TypedCheck(model, body, inspect)
