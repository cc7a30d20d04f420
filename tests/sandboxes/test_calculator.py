"""The calculator: what it works out, what it refuses in bounds, and its two busy answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.episodes import Episode, Workbench
from agenthub.errors import UnknownName, UserError
from agenthub.generators.arithmetic import problems
from agenthub.records import Call, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.calculator import Calculator, CalculatorSandbox, work_out
from agenthub.suites.load import load_suites
from agenthub.wire import Action

TASKS = Path(__file__).parents[2] / "tasks"


def call(code: object) -> Call:
    return Call(id="0.0", tool="calculator", arguments=frozen({"code": code}))


@pytest.mark.parametrize("kind", ["pair", "chain", "remainder", "range", "square"])
def test_it_works_out_every_kind_of_question_as_python_does(kind: str) -> None:
    for problem in problems(3, 40, [kind]):
        assert work_out(f"print({problem.expression})", {}) == f"{problem.answer}\n"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("x=3\nprint(x*2, -x)", "6 -3\n"),
        ("7//2", "3\n"),
        ("1+1\n2+2", "4\n"),
        ("x=5", ""),
        ("print(sum(range(10)))", "45\n"),
        ("sum(range(9,2))", "0\n"),
        ("(-7)%3", "2\n"),
    ],
)
def test_it_shows_what_python_would(code: str, shown: str) -> None:
    assert work_out(code, {}) == shown


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("prnt(3)", "NameError: name 'prnt' is not defined"),
        ("print(3", "SyntaxError"),
        ("1//0", "ZeroDivisionError"),
        ("2**65", "OverflowError"),
        ("10**60**60", "OverflowError"),
        ("2**-1", "OverflowError"),
        ("import os", "SyntaxError: expressions"),
        ("().__class__", "TypeError"),
        ("print.__self__", "TypeError"),
        ("x+1", "NameError: name 'x'"),
        ("print(1, file=2)", "TypeError"),
        ("sum([1,2])", "TypeError"),
        ("1.5+1", "TypeError"),
        ("True+1", "TypeError"),
        ("1<<9", "TypeError"),
        ("(" * 199, "SyntaxError"),
        ("(" * 199 + "1" + ")" * 199 + ")", "SyntaxError"),
        ("9" * 390, "OverflowError"),
        ("1+" * 300 + "1", "MemoryError"),
        ("\0", "SyntaxError"),
        ("\ud800", "SyntaxError"),
    ],
)
def test_what_it_does_not_know_is_an_error_in_one_line(code: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        work_out(code, {})


@given(st.text(alphabet="0123456789+-*/%()=x\nprintsumrange, ", max_size=80))
def test_any_text_gives_a_text_or_an_error_at_once(code: str) -> None:
    started = time.process_time()
    try:
        shown = work_out(code, {"x": 2**500})
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert len(shown) < 10_000
    assert time.process_time() - started < 2.0


async def test_it_is_busy_as_often_as_its_setting_says_and_its_copies_go_on_from_there() -> None:
    first = await CalculatorSandbox().start(SandboxSpec(params=frozen({"busy": 2})))
    assert (await first.call(call("x=2"), timeout_s=1)).failed
    (copy,) = await first.fork(1)
    for one in (first, copy):
        assert "busy" in (await one.call(call("x=2"), timeout_s=1)).text
        assert (await one.call(call("x=2\nprint(x)"), timeout_s=1)).text == "2\n"
    assert (await copy.call(call("print(x*x)"), timeout_s=1)).text == "4\n"
    for bad in (None, 3):
        assert (await copy.call(call(bad), timeout_s=1)).failed
    (third,) = await copy.fork(1)
    assert isinstance(third, Calculator) and third.call_now(call("x")).text == "2\n"


async def test_settings_and_files_that_it_has_not_are_refused() -> None:
    factory = CalculatorSandbox()
    with pytest.raises(UnknownName, match="did you mean 'busy'"):
        await factory.start(SandboxSpec(params=frozen({"bussy": 1})))
    for value in (-1, True, "2", 101):
        with pytest.raises(UserError, match="busy"):
            await factory.start(SandboxSpec(params=frozen({"busy": value})))
    with pytest.raises(UserError, match="no files"):
        await factory.start(SandboxSpec(files=frozen({"a": b""})))


async def test_the_suite_needs_four_turns_and_pays_for_the_last_alone() -> None:
    task = load_suites([TASKS / "persistence.yaml"])["persistence"].tasks[0]
    bench = Workbench()
    episode = Episode(task, bench, id="e", group="g", member=0)
    await episode.open()
    steps = [await episode.step(Action(text=text), timeout_s=None, generation=None) for text in task.solution]
    await bench.close()
    assert [step.reward for step in steps] == [0.0, 0.0, 0.0, 1.0]
    assert ["busy" in step.observation["text"] for step in steps] == [True, True, False, False]
