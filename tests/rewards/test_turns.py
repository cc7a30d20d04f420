"""Turn checks: what a turn earns, and once an episode."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agenthub.records import Observation, Text, Turn
from agenthub.rewards.turns import answered, call_ok, output_has_target, turn_rewards
from agenthub.suites.task import TurnCheck
from tests.rewards.tasks import called, make_task

TASK = make_task(target=4030)


def test_call_ok_wants_a_call_and_every_call_to_succeed() -> None:
    assert call_ok(TASK, called("1", "1"), {})
    assert not call_ok(TASK, called("1", "Boom", failed=True), {})
    assert not call_ok(TASK, Turn(index=0, generation=None, text="4030"), {})
    both = called("1", "1")
    assert not call_ok(TASK, replace(both, calls=(*both.calls, replace(both.calls[0], id="0.1"))), {})


@pytest.mark.parametrize(
    ("output", "has"),
    [
        ("4030", True),
        ("x = 4030\n", True),
        ("4,030", True),
        ("4030.0", True),
        ("14030", False),
        ("40301", False),
        ("4030.5", False),
        ("-4030", False),
        ("", False),
    ],
)
def test_output_has_target_reads_whole_numbers(output: str, has: bool) -> None:
    assert output_has_target(TASK, called("print(65*62)", output), {}) is has


def test_output_has_target_ignores_failed_calls_and_notices() -> None:
    assert not output_has_target(TASK, called("1", "4030", failed=True), {})
    notice = Observation(call_id="", parts=(Text(text="4030"),))
    assert not output_has_target(TASK, Turn(index=0, generation=None, text="", observations=(notice,)), {})


def test_output_has_target_takes_a_text_target_as_a_line() -> None:
    task = make_task(target="blue whale")
    assert output_has_target(task, called("1", "found:\nblue  whale\n"), {})
    assert not output_has_target(task, called("1", "blue whales"), {})


def test_answered_wants_more_than_blanks() -> None:
    assert answered(TASK, Turn(index=0, generation=None, text="", answer="5"), {})
    assert not answered(TASK, Turn(index=0, generation=None, text="", answer=" "), {})
    assert not answered(TASK, Turn(index=0, generation=None, text="5"), {})


def test_components_are_paid_by_name_and_first_only_ones_once() -> None:
    task = make_task(
        target=4030,
        turn_checks=(
            TurnCheck(name="ran", uses="call_ok", reward=0.1),
            TurnCheck(name="found", uses="output_has_target", reward=0.5, first_only=True),
        ),
    )
    paid: set[str] = set()
    assert turn_rewards(task, called("1", "no"), paid) == {"ran": 0.1}
    assert turn_rewards(task, called("1", "4030", index=1), paid) == {"ran": 0.1, "found": 0.5}
    assert turn_rewards(task, called("1", "4030", index=2), paid) == {"ran": 0.1}
    assert turn_rewards(task, Turn(index=3, generation=None, text=""), paid) == {}
