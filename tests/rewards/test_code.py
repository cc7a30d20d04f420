"""Code checks in real boxes: what honest code earns, and what tampering does not."""

from __future__ import annotations

from typing import Any

import pytest

from agenthub.episodes import Workbench
from agenthub.errors import TaskBroken
from agenthub.rewards.score import Verdict
from agenthub.rewards.verify import verify
from tests.rewards.tasks import called, make_task

pytestmark = pytest.mark.asyncio(loop_scope="module")

TESTS = """
def check(candidate):
    assert candidate(2, 3) == 5
    assert candidate(-1, 1) == 0
"""


async def grade(bench: Workbench, code: str, tests: str = TESTS, **args: Any) -> Verdict:
    given = {"tests": tests, "entry": "add", "seconds": 5.0, **args}
    return await verify(make_task(("unittest", given)), (called(code),), None, bench.code_box)


async def play_cases(bench: Workbench, code: str, cases: list[dict[str, str]], **args: Any) -> Verdict:
    given = {"cases": cases, "seconds": 5.0, **args}
    return await verify(make_task(("io_cases", given)), (called(code),), None, bench.code_box)


async def test_a_right_function_wins_and_a_wrong_one_does_not(bench: Workbench) -> None:
    assert (await grade(bench, "def add(a, b):\n    return a + b")).outcome == 1
    wrong = await grade(bench, "def add(a, b):\n    return a - b")
    assert wrong.outcome == 0
    assert "AssertionError" in wrong.reason


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("always equal", "class E:\n    def __eq__(self, o): return True\ndef add(a, b): return E()"),
        ("int subclass", "class I(int):\n    def __eq__(self, o): return True\ndef add(a, b): return I(7)"),
        ("str subclass", "class S(str):\n    def __eq__(self, o): return True\ndef add(a, b): return S('x')"),
        ("list of liars", "class E:\n    def __eq__(self, o): return True\ndef add(a, b): return [E()]"),
        ("metaclass", "class M(type):\n    def __eq__(c, o): return True\nC = M('C', (), {})\ndef add(a, b): return C"),
        ("exits with 0", "import sys\ndef add(a, b): sys.exit(0)"),
        ("exits at once", "import os\nos._exit(0)\ndef add(a, b): return 1"),
        ("exits in the call", "import os\ndef add(a, b): os._exit(0)"),
        ("exits while loading", "raise SystemExit(0)"),
        ("kills itself", "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGKILL)"),
        ("prints success", "def add(a, b):\n    print('OK 1 passed')\n    return 'passed'"),
        ("patches builtins", "import builtins\nbuiltins.AssertionError = ValueError\ndef add(a, b): return 1"),
        ("redefines check", "def check(c): pass\ndef add(a, b): return 1"),
        ("replaces the tests", "import sys\nfor m in [*sys.modules.values()]: m.check = id\ndef add(a, b): return 1"),
        ("raises StopIteration", "def add(a, b): raise StopIteration"),
        ("raises KeyboardInterrupt", "def add(a, b): raise KeyboardInterrupt"),
        ("raises GeneratorExit", "def add(a, b): raise GeneratorExit"),
        ("returns nothing", "def add(a, b): pass"),
        ("not a function", "add = 5"),
        ("another name", "def plus(a, b): return a + b"),
        ("does not compile", "def add(a, b: return a + b"),
        ("never returns", "def add(a, b):\n    while True: pass"),
        ("eats memory", "def add(a, b):\n    return len(bytearray(8 << 30))"),
        ("returns far too much", "def add(a, b):\n    return 'x' * (64 << 20)"),
        ("forks and lies", "import os\ndef add(a, b):\n    os.fork()\n    return 5"),
        ("closes descriptors", "import os\nos.closerange(3, 256)\ndef add(a, b): return 5"),
        ("patches operator", "import operator, ctypes\ndef add(a, b): return float('nan')"),
        ("a true value", "def add(a, b): return True"),
        ("empty", ""),
    ],
)  # fmt: skip
async def test_tampering_with_the_grader_earns_nothing(bench: Workbench, name: str, code: str) -> None:
    assert (await grade(bench, code, seconds=2.0)).outcome == 0, name


async def test_values_reach_the_tests_with_their_exact_types(bench: Workbench) -> None:
    tests = """
def check(candidate):
    for value in (None, True, 1, 1.5, 2j, "a", b"b", [1, (2, {3})], {"k": (1,), 2: None}, frozenset({1})):
        got = candidate(value)
        assert type(got) is type(value) and got == value
"""
    assert (await grade(bench, "def add(value): return value", tests)).outcome == 1
    assert (await grade(bench, "def add(value): return list(value) if type(value) is tuple else value", tests)).outcome
    changed = "def add(value): return tuple(value) if type(value) is list else value"
    assert (await grade(bench, changed, tests)).outcome == 0


async def test_the_candidates_box_holds_no_tests(bench: Workbench) -> None:
    looks = """
import gc, sys
def add(a, b):
    found = [o for o in gc.get_objects() if callable(o) and getattr(o, '__name__', '') == 'check']
    return 'seen' if found or any(hasattr(m, 'check') for m in sys.modules.values() if m) else 5
"""
    tests = "def check(candidate):\n    assert candidate(2, 3) == 5"
    assert (await grade(bench, looks, tests)).outcome == 1


async def test_each_test_function_has_its_own_verdict_and_partial_counts_them(bench: Workbench) -> None:
    tests = "def one(f): assert f(1) == 1\ndef two(f): assert f(2) == 3\ndef three(f): assert f(3) == 3"
    names = ("one", "two", "three")
    code = "def add(a): return a"
    assert (await grade(bench, code, tests, functions=names)).outcome == 0
    assert (await grade(bench, code, tests, functions=names, partial=True)).outcome == pytest.approx(2 / 3)


async def test_the_header_is_there_for_tests_and_candidate(bench: Workbench) -> None:
    header = "def helper(a):\n    return a * 10\n\ndef add(a, b):\n    pass\n"
    tests = "def check(candidate):\n    assert candidate(1, 2) == helper(1) + 2 == add(1, 2)"
    assert (await grade(bench, "def add(a, b): return helper(a) + b", tests, header=header)).outcome == 1
    cheat = "def helper(a): return 0\ndef add(a, b): return 2"
    assert (await grade(bench, cheat, tests, header=header)).outcome == 0
    assert (await grade(bench, "x = 1", tests, header=header)).outcome == 0


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("def check(f:", "the tests are no Python"),
        ("def other(f): pass", "the tests define no function check"),
        ("import no_such_module\ndef check(f): pass", "the tests do not load"),
    ],
)
async def test_broken_tests_are_the_tasks_fault(bench: Workbench, tests: str, message: str) -> None:
    with pytest.raises(TaskBroken, match=message):
        await grade(bench, "def add(a, b): return a + b", tests)


async def test_the_code_may_come_from_the_answer_in_a_fence(bench: Workbench) -> None:
    task = make_task(("unittest", {"tests": TESTS, "entry": "add", "candidate": "answer"}))
    code = "def add(a, b):\n    return a + b"
    for answer in (code, f"```python\n{code}\n```"):
        assert (await verify(task, (), answer, bench.code_box)).outcome == 1
    assert (await verify(task, (called(code),), None, bench.code_box)).outcome == 0


async def test_the_last_call_is_graded_even_where_a_later_turn_has_none(bench: Workbench) -> None:
    task = make_task(("unittest", {"tests": TESTS, "entry": "add"}))
    good, bad = called("def add(a, b): return a + b"), called("def add(a, b): return 0", index=1)
    assert (await verify(task, (bad, good), None, bench.code_box)).outcome == 1
    assert (await verify(task, (good, bad), None, bench.code_box)).outcome == 0


async def test_a_script_is_run_afresh_for_each_case(bench: Workbench) -> None:
    cases = [{"stdin": "2 3\n", "stdout": "5\n"}, {"stdin": "-1 1\n", "stdout": "0\n"}]
    assert (await play_cases(bench, "print(sum(map(int, input().split())))", cases)).outcome == 1
    assert (
        await play_cases(bench, "if __name__ == '__main__':\n    print(sum(map(int, input().split())))", cases)
    ).outcome
    remembers = """
import os
print(5 if not os.path.exists('seen') else 0)
open('seen', 'w').close()
"""
    assert (await play_cases(bench, remembers, cases)).outcome == 0


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("print('5  ')\nprint()", 1),
        ("import sys\nsys.stdout.write('5')", 1),
        ("import sys\nsys.stdout.buffer.write(b'5\\n')", 1),
        ("print(5)\nimport sys\nsys.exit(0)", 1),
        ("print(5)\nimport sys\nsys.exit(1)", 0),
        ("print(5)\nimport os\nos._exit(3)", 0),
        ("print(5)\n1/0", 0),
        ("import sys\nprint(5, file=sys.stderr)", 0),
        ("print(55)", 0),
        ("print(5)\nwhile True: pass", 0),
        ("while True: print(5)", 0),
        ("pass", 0),
    ],
)
async def test_what_a_script_must_write_and_how_it_must_end(bench: Workbench, code: str, outcome: int) -> None:
    assert (await play_cases(bench, code, [{"stdout": "5\n"}], seconds=2.0)).outcome == outcome


async def test_how_outputs_are_compared(bench: Workbench) -> None:
    code = "print('1  2')\nprint('3')"
    for compare, outcome in (("tokens", 1), ("lines", 0), ("exact", 0)):
        assert (await play_cases(bench, code, [{"stdout": "1 2 3\n"}], compare=compare)).outcome == outcome
    assert (await play_cases(bench, code, [{"stdout": "1  2\n3\n"}], compare="exact")).outcome == 1
    assert (await play_cases(bench, code, [{"stdout": "1  2\n3"}], compare="exact")).outcome == 0


async def test_cases_count_in_shares_where_partial_is_on(bench: Workbench) -> None:
    cases = [{"stdin": "1", "stdout": "1"}, {"stdin": "2", "stdout": "9"}, {"stdin": "3", "stdout": "3"}]
    assert (await play_cases(bench, "print(input())", cases, partial=True)).outcome == pytest.approx(2 / 3)
