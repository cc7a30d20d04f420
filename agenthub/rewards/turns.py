"""Turn checks: named reward components of single turns, paid in the hub while the episode runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agenthub.records import Turn
from agenthub.registry import registry
from agenthub.rewards.answers import accepted, number, same_text
from agenthub.suites.task import Task

__all__ = ["answered", "call_ok", "output_has_target", "turn_rewards"]

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w])")


def turn_rewards(task: Task, turn: Turn, paid: set[str]) -> dict[str, float]:
    """The components that this turn earns, by name; a check that did not pass is absent.

    Args:
        paid: names paid earlier in the episode; those of `first_only` checks that pass now are added to it.
    """
    rewards: dict[str, float] = {}
    for check in task.turn_checks:
        if check.first_only and check.name in paid:
            continue
        if registry("turn_check").load(check.uses, task.place)(task, turn, check.args):
            rewards[check.name] = rewards.get(check.name, 0.0) + check.reward
            paid.add(check.name)
    return rewards


def call_ok(task: Task, turn: Turn, args: Mapping[str, Any]) -> bool:
    """The turn called a tool, and every call succeeded."""
    del task, args
    shown = {observation.call_id for observation in turn.observations if not observation.failed}
    return bool(turn.calls) and all(call.id in shown for call in turn.calls)


def output_has_target(task: Task, turn: Turn, args: Mapping[str, Any]) -> bool:
    """A successful call showed an accepted answer: as a number of its own where it is one, else as a line's text."""
    del args
    texts = [observation.text for observation in turn.observations if observation.call_id and not observation.failed]
    for expected in accepted(task):
        value = number(expected)
        for text in texts:
            if value is not None and any(number(found) == value for found in _NUMBER.findall(text)):
                return True
            if value is None and any(same_text(line, str(expected)) for line in text.splitlines()):
                return True
    return False


def answered(task: Task, turn: Turn, args: Mapping[str, Any]) -> bool:
    """The turn gave a final answer that is not blank."""
    del task, args
    return turn.answer is not None and bool(turn.answer.strip())
