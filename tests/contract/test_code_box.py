"""What every grading box keeps."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from agenthub.registry import registry
from agenthub.sandbox import CodeBox, Plain, SandboxFactory, SandboxSpec
from tests.sandboxes.boxes import need_jail

ECHO = "def echo(*args, **kwargs): return (args, kwargs)"


@pytest.fixture(params=["python"])
async def factory(request: pytest.FixtureRequest) -> AsyncIterator[SandboxFactory]:
    need_jail()
    made: SandboxFactory = registry("sandbox").load(request.param)(isolation="jail")
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def box(factory: SandboxFactory) -> CodeBox:
    return await factory.code_box(SandboxSpec())


async def invoke(box: CodeBox, name: str, *args: Any) -> Plain:
    return await box.invoke(name, args, {}, timeout_s=20)


async def test_plain_values_keep_their_exact_types(box: CodeBox) -> None:
    await box.load(ECHO, timeout_s=20)
    value: list[Any] = [None, True, 0, -(2**200), 0.1, math.inf, 1 + 2j, "a\0\ud800", b"\xff", (1, [2]), {3}]
    value += [frozenset({4})]
    value += [{(1, "k"): {"x": []}}, -0.0]
    seen = await box.invoke("echo", [value], {"word": (value,)}, timeout_s=20)
    assert seen.error is None
    assert repr(seen.value) == repr(((value,), {"word": (value,)}))


async def test_state_lasts_from_load_to_invoke(box: CodeBox) -> None:
    await box.load("count = 0\ndef up():\n global count\n count += 1\n return count", timeout_s=20)
    assert [(await invoke(box, "up")).value for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("source", "starts"),
    [
        ("def f(): return 1 / 0", "ZeroDivisionError: "),
        ("class Odd(Exception): pass\ndef f(): raise Odd('why')", "Odd: why"),
        ("def f(): return object()", "TypeError: "),
        ("class S(str): pass\ndef f(): return S('x')", "TypeError: "),
        ("class L(list):\n def __eq__(self, other): return True\ndef f(): return [L()]", "TypeError: "),
        ("def f(): return (x for x in ())", "TypeError: "),
        ("def f():\n x = []\n x.append(x)\n return x", "TypeError: "),
        ("def f(): raise SystemExit(0)", "SystemExit: 0"),
        ("class E(Exception):\n def __str__(self): raise RuntimeError\ndef f(): raise E", "E: "),
        ("f = 3", "TypeError: "),
        ("g = 3", "KeyError: "),
    ],
)
async def test_what_is_no_plain_value_is_an_error(box: CodeBox, source: str, starts: str) -> None:
    assert (await box.load(source, timeout_s=20)).error is None
    seen = await invoke(box, "f")
    assert seen.value is None and seen.error is not None and seen.error.startswith(starts)
    assert not seen.lost


async def test_source_that_does_not_load_is_an_error(box: CodeBox) -> None:
    for source, name in (("def (", "SyntaxError"), ("import nowhere", "ModuleNotFoundError"), ("a\0b", "SyntaxError")):
        seen = await box.load(source, timeout_s=20)
        assert seen.error is not None and seen.error.startswith((name, "ValueError"))


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f(): os._exit(0)",
        "import os\ndef f(): os.kill(os.getpid(), 9)",
        "import os\ndef f(): os.close(3)",
    ],
)
async def test_a_box_that_ends_is_lost_and_stays_so(box: CodeBox, source: str) -> None:
    await box.load(source, timeout_s=20)
    seen = await invoke(box, "f")
    assert seen.lost and seen.error and seen.value is None
    assert (await invoke(box, "f")).lost


async def test_time_over_is_lost(box: CodeBox) -> None:
    await box.load("def f():\n while True: pass", timeout_s=20)
    seen = await box.invoke("f", [], {}, timeout_s=0.3)
    assert seen.lost and "time" in str(seen.error)


async def test_a_test_function_drives_a_candidate_in_another_box(factory: SandboxFactory) -> None:
    tests = await factory.code_box(SandboxSpec())
    candidate = await factory.code_box(SandboxSpec())
    await candidate.load("def area(w, h=1):\n if w < 0: raise ValueError('negative')\n return w * h", timeout_s=20)
    source = """
def check(area):
    assert area(2, h=3) == 6
    try:
        area(-1)
    except ValueError as error:
        assert str(error) == "negative"
    else:
        raise AssertionError("no error")
    return area(5)
def fails(area):
    assert area(1) == 2, "one is not two"
"""
    assert (await tests.load(source, timeout_s=20)).error is None

    async def ask(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Plain:
        return await candidate.invoke("area", args, kwargs, timeout_s=20)

    assert await tests.drive("check", candidate=ask, timeout_s=20) == Plain(value=5)
    assert (await tests.drive("fails", candidate=ask, timeout_s=20)).error == "AssertionError: one is not two"


async def test_an_error_of_an_unknown_class_is_a_runtime_error_in_the_test(box: CodeBox) -> None:
    async def ask(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Plain:
        return Plain(error="Odd: why")

    source = "def check(f):\n try: f()\n except RuntimeError as error: return str(error)"
    await box.load(source, timeout_s=20)
    assert await box.drive("check", candidate=ask, timeout_s=20) == Plain(value="Odd: why")


async def test_time_over_within_a_candidate_is_the_time_of_the_test(box: CodeBox, factory: SandboxFactory) -> None:
    candidate = await factory.code_box(SandboxSpec())
    await candidate.load("def f():\n while True: pass", timeout_s=20)
    await box.load("def check(f): f()", timeout_s=20)

    async def ask(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Plain:
        return await candidate.invoke("f", args, kwargs, timeout_s=20)

    seen = await box.drive("check", candidate=ask, timeout_s=0.3)
    assert seen.lost and seen.error


@pytest.mark.parametrize(
    ("source", "value", "output"),
    [
        ("print(sum(map(int, open(0))))", 0, b"6\n"),
        ("import sys\nprint(sys.stdin.readline().strip())\nsys.exit(4)", 4, b"1\n"),
        ("import sys\nsys.exit('bad')", 1, b""),
        ("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])", 0, b"3\n2\n1"),
        ("import os\nos.write(1, b'raw')\nos._exit(5)", 5, b"raw"),
        ("print(__name__)", 0, b"__main__\n"),
        ("print(end='')", 0, b""),
    ],
)
async def test_a_script_runs_on_its_input(box: CodeBox, source: str, value: int, output: bytes) -> None:
    seen, out = await box.run(source, stdin=b"1\n2\n3", timeout_s=20)
    assert (seen.value, seen.error, out) == (value, None, output)


async def test_a_script_that_raises_is_an_error_with_its_output(box: CodeBox) -> None:
    seen, out = await box.run("print('before')\n1 / 0", stdin=b"", timeout_s=20)
    assert seen.error == "ZeroDivisionError: division by zero" and out == b"before\n"


async def test_a_script_that_reads_past_its_input_meets_the_end(box: CodeBox) -> None:
    seen, _ = await box.run("input()", stdin=b"", timeout_s=20)
    assert seen.error == "EOFError: EOF when reading a line"


async def test_output_of_graded_code_never_blocks_it(box: CodeBox) -> None:
    await box.load("def f():\n print('x' * 400_000)\n return 1", timeout_s=20)
    assert await invoke(box, "f") == Plain(value=1)


async def test_a_closed_box_is_lost(box: CodeBox) -> None:
    await box.close()
    await box.close()
    assert (await invoke(box, "f")).lost
