"""Checks of the final answer, through the verifier that runs them."""

from __future__ import annotations

from typing import Any

import pytest

from agenthub.errors import HostFault, TaskBroken
from agenthub.records import Turn
from agenthub.rewards.score import Score
from agenthub.rewards.verify import combine, verify
from agenthub.sandbox import CodeBox
from agenthub.suites.task import Task
from tests.rewards.tasks import make_task


async def no_box(uses: str) -> CodeBox:
    raise AssertionError(f"no box is needed here, of {uses}")


async def outcome(task: Task, answer: str | None, turns: tuple[Turn, ...] = ()) -> float:
    return (await verify(task, turns, answer, no_box)).outcome


@pytest.mark.parametrize(
    ("uses", "args", "target", "answer", "value"),
    [
        ("exact", {}, "Paris", "Paris", 1),
        ("exact", {}, "Paris", " Paris\n", 1),
        ("exact", {}, "Paris", "paris", 0),
        ("exact", {"case": False}, "Paris", "paris", 1),
        ("exact", {}, "Paris", "It is Paris", 0),
        ("exact", {}, ("Paris", "Lutetia"), "Lutetia", 1),
        ("exact", {}, 7, "7", 1),
        ("exact", {}, "Paris", "", 0),
        ("exact", {}, "Paris", None, 0),
        ("numeric", {}, 72, "72", 1),
        ("numeric", {}, 72, "72.0", 1),
        ("numeric", {}, 72, "73", 0),
        ("numeric", {}, "1,000", "1000", 1),
        ("numeric", {}, 72, "the answer is 72", 0),
        ("numeric", {}, 72, "72 72", 0),
        ("numeric", {}, 72, "", 0),
        ("numeric", {}, 72, None, 0),
        ("numeric", {"abs": 0.01}, 1.0, "1.01", 1),
        ("numeric", {"abs": 0.01}, 1.0, "1.0101", 0),
        ("numeric", {"rel": 0.01}, -200, "-198", 1),
        ("numeric", {"rel": 0.01}, -200, "-197.9", 0),
        ("numeric", {"abs": 1, "rel": 0.5}, 1000, "600", 1),
        ("numeric", {}, (1, 2), "2", 1),
        ("numeric", {}, 72, "nan", 0),
        ("numeric", {"abs": 1e300}, 72, "inf", 0),
        ("regex", {"pattern": "a+b"}, None, "aab", 1),
        ("regex", {"pattern": "a+b"}, None, " aab ", 1),
        ("regex", {"pattern": "a+b"}, None, "xaab", 0),
        ("regex", {"pattern": "a+b"}, None, "aab\nc", 0),
        ("regex", {"pattern": "A+B", "ignore_case": True}, None, "aab", 1),
        ("regex", {"pattern": ".*"}, None, None, 0),
        ("regex", {"pattern": ".*"}, None, "a" * 100_001, 0),
    ],
)
async def test_what_a_check_takes(uses: str, args: dict[str, Any], target: Any, answer: str | None, value: int) -> None:
    assert await outcome(make_task((uses, args), target=target), answer) == value


async def test_the_right_number_in_prose_alone_is_no_answer() -> None:
    turn = Turn(index=0, generation=None, text="So the answer is 72. It is 72, surely: 72")
    assert await outcome(make_task(("numeric", {}), target=72), None, (turn,)) == 0


async def test_reasoning_gym_scores_with_the_datasets_own_scorer() -> None:
    pytest.importorskip("reasoning_gym")
    args = {"dataset": "chain_sum", "seed": 1, "size": 5, "index": 3}
    from agenthub.generators.reasoning import generate

    row = list(generate({"variant": "chain_sum"}, 1, 5))[3]
    right = row["solution"]["turns"][0].removeprefix("\\boxed{").removesuffix("}")
    assert await outcome(make_task(("reasoning_gym", args)), right) == 1
    assert await outcome(make_task(("reasoning_gym", args)), f"{right}1") < 1
    assert await outcome(make_task(("reasoning_gym", args)), None) == 0


@pytest.mark.parametrize(
    ("uses", "args", "target", "message"),
    [
        ("numeric", {"abss": 1}, 72, "args.abss"),
        ("numeric", {"abs": -1}, 72, "args.abs"),
        ("numeric", {}, "many", "the target is no number"),
        ("numeric", {}, None, "no target"),
        ("exact", {}, (), "no target"),
        ("regex", {"pattern": "("}, None, "no regular expression"),
        ("exct", {}, "a", "did you mean 'exact'?"),
        ("unittest", {"tests": "def check(f): pass", "entry": "a b"}, None, "entry is 'a b'"),
    ],
)
async def test_a_task_that_cannot_be_graded_is_broken(
    uses: str, args: dict[str, Any], target: Any, message: str
) -> None:
    with pytest.raises(TaskBroken) as caught:
        await outcome(make_task((uses, args), target=target), "a")
    assert str(caught.value).startswith("s.yaml:1: check 'c0': ")
    assert message in str(caught.value)


async def test_a_verifier_without_checks_is_broken() -> None:
    with pytest.raises(TaskBroken, match="no checks"):
        await outcome(make_task(), "a")


async def test_a_fault_of_ours_passes_through() -> None:
    async def no_engine(uses: str) -> CodeBox:
        raise HostFault("the engine is gone")

    args = {"cases": [{"stdout": "1"}], "candidate": "answer"}
    with pytest.raises(HostFault, match="engine is gone"):
        await verify(make_task(("io_cases", args)), (), "print(1)", no_engine)


@pytest.mark.parametrize(
    ("how", "values", "weights", "expected"),
    [
        ("weighted", (1, 0), (3, 1), 0.75),
        ("weighted", (0.5, 0.5), (0, 2), 0.5),
        ("mean", (1, 0.5), (9, 1), 0.75),
        ("min", (1, 0.5), (1, 1), 0.5),
        ("and", (1, 0.99), (1, 1), 0),
        ("and", (1, 1), (1, 1), 1),
        ("or", (0.99, 1), (1, 1), 1),
        ("or", (0.99, 0.5), (1, 1), 0),
        ("first", (0, 0.5, 1), (1, 1, 1), 0.5),
        ("first", (0, 0), (1, 1), 0),
    ],
)
def test_how_scores_combine(how: str, values: tuple[float, ...], weights: tuple[float, ...], expected: float) -> None:
    assert combine(how, weights, [Score(value=value) for value in values]) == expected


async def test_a_required_check_that_fails_takes_the_outcome_to_zero() -> None:
    checks: tuple[tuple[str, dict[str, Any]], ...] = (("exact", {}), ("regex", {"pattern": "b"}))
    assert await outcome(make_task(*checks, target="a"), "a") == 0.5
    assert await outcome(make_task(*checks, target="a", required=(1,)), "a") == 0
    assert await outcome(make_task(*checks, target="a", required=(0,)), "a") == 0.5


async def test_the_outcome_is_scaled() -> None:
    assert await outcome(make_task(("exact", {}), target="a", scale=2.5), "a") == 2.5


async def test_a_reason_never_holds_the_target() -> None:
    task = make_task(("exact", {}), ("numeric", {}), ("regex", {"pattern": "98765"}), target=98765)
    verdict = await verify(task, (), "12", no_box)
    assert verdict.reason
    assert "98765" not in verdict.reason
