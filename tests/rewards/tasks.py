"""Tasks and episodes for tests of rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agenthub.records import Call, Message, Observation, Text, Turn, frozen
from agenthub.suites.task import Check, Task, TurnCheck, Verifier

__all__ = ["called", "make_task"]


def make_task(
    *checks: tuple[str, Mapping[str, Any]],
    target: Any = None,
    combine: str = "weighted",
    scale: float = 1.0,
    weights: tuple[float, ...] = (),
    required: tuple[int, ...] = (),
    turn_checks: tuple[TurnCheck, ...] = (),
) -> Task:
    """A task with these checks; their ids are c0, c1, ..."""
    made = tuple(
        Check(
            id=f"c{index}",
            uses=uses,
            args=frozen(args),
            weight=weights[index] if weights else 1.0,
            required=index in required,
        )
        for index, (uses, args) in enumerate(checks)
    )
    return Task(
        id="t",
        suite="s",
        split="eval",
        messages=(Message(role="user", content="?"),),
        protocol="fence_strict",
        tools=(),
        verifier=Verifier(checks=made, combine=combine, scale=scale),
        target=target,
        turn_checks=turn_checks,
        place="s.yaml:1",
    )


def called(code: str, output: str = "", *, failed: bool = False, index: int = 0, answer: str | None = None) -> Turn:
    """A turn with one call of the Python tool and what it showed."""
    identity = f"{index}.0"
    shown = Observation(call_id=identity, parts=(Text(text=output),), failed=failed)
    call = Call(id=identity, tool="python", arguments=frozen({"code": code}))
    return Turn(index=index, generation=None, text="", calls=(call,), answer=answer, observations=(shown,))
