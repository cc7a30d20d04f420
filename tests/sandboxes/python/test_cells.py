"""Turns of the Python tool: what a notebook would show."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agenthub.sandboxes.python.sandbox import PythonSandbox
from agenthub.sandboxes.python.session import PythonSession
from tests.sandboxes.boxes import python_factory, run, shown, small


@pytest.fixture
async def factory() -> AsyncIterator[PythonSandbox]:
    async with python_factory() as made:
        yield made


@pytest.fixture
async def sandbox(factory: PythonSandbox) -> PythonSession:
    return await factory.start(small())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("", ""),
        ("# nothing", ""),
        ("x = 3", ""),
        ("None", ""),
        ("'a'", "'a'\n"),
        ("print('a')\n'b'", "a\n'b'\n"),
        ("for i in range(2): print(i)", "0\n1\n"),
        ("1;2", "2\n"),
        ("import sys; print('e', file=sys.stderr); print('o')", "o\ne\n"),
        ("print('no newline', end='')", "no newline\n"),
        ("__name__", "'__main__'\n"),
        ("import __main__; y = 5; __main__.y", "5\n"),
        ("import sys, os; os.getcwd(), sys.argv", "('/workspace', [''])\n"),
        ("import sys; sys.stdin.read()", "''\n"),
        ("'x' * 20_000", "'" + "x" * 8191 + "\n... 3618 characters cut ...\n" + "x" * 8191 + "'\n"),
    ],
)
async def test_what_a_cell_shows(sandbox: PythonSession, code: str, text: str) -> None:
    assert await shown(sandbox, code) == text


async def test_state_lasts_and_the_last_value_is_an_underscore(sandbox: PythonSession) -> None:
    await run(sandbox, "import math\ndef area(r): return math.pi * r ** 2")
    assert await shown(sandbox, "round(area(2), 3)") == "12.566\n"
    assert await shown(sandbox, "_ + 1") == "13.566\n"


async def test_a_traceback_shows_only_the_frames_of_the_code(sandbox: PythonSession) -> None:
    await run(sandbox, "def f(x):\n    return 1 / x")
    seen = await run(sandbox, "import json\nf(0)")
    assert seen.failed and [part.channel for part in seen.parts] == ["error"]  # type: ignore[union-attr]
    assert seen.text == (
        'Traceback (most recent call last):\n  File "<turn 2>", line 2, in <module>\n    f(0)\n'
        '  File "<turn 1>", line 2, in f\n    return 1 / x\n            ~~^~~\nZeroDivisionError: division by zero\n'
    )


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("def (", "SyntaxError: invalid syntax"),
        ("import json; json.loads('{')", "json.decoder.JSONDecodeError"),
        ("raise ExceptionGroup('g', [ValueError(1)])", "ValueError: 1"),
        ("try:\n 1/0\nexcept ZeroDivisionError as e: raise KeyError('k') from e", "KeyError: 'k'"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("input()", "EOFError: EOF when reading a line"),
    ],
)
async def test_an_error_ends_with_its_name(sandbox: PythonSession, code: str, last: str) -> None:
    seen = await run(sandbox, code)
    assert seen.failed and last in seen.text.strip().splitlines()[-1] + seen.text
    assert "site-packages" not in seen.text and "guest" not in seen.text and "cell.py" not in seen.text


async def test_output_before_an_interrupt_is_kept(sandbox: PythonSession) -> None:
    seen = await run(sandbox, "x = 1\nprint('before')\nx = 2\nwhile True: pass", timeout_s=0.3)
    assert seen.text.startswith("before\n") and "interrupted after 0.3 s" in seen.text
    assert await shown(sandbox, "x") == "2\n"


async def test_an_interrupt_between_turns_does_nothing(sandbox: PythonSession) -> None:
    await run(sandbox, "x = 1")
    await sandbox._box.signal_soft()
    assert await shown(sandbox, "x") == "1\n"


async def test_threads_processes_and_asyncio_work(sandbox: PythonSession) -> None:
    code = "import threading\nt = threading.Thread(target=print, args=(1,))\nt.start(); t.join()"
    assert await shown(sandbox, code) == "1\n"
    code = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(2)'], capture_output=True).stdout"
    assert await shown(sandbox, code) == "b'2\\n'\n"
    assert await shown(sandbox, "import asyncio\nasyncio.run(asyncio.sleep(0, 3))") == "3\n"
    code = "from concurrent.futures import ProcessPoolExecutor as P\nwith P(2) as p: print(list(p.map(abs, [-1, -2])))"
    assert await shown(sandbox, code) == "[1, 2]\n"


async def test_files_of_a_program_are_listed_and_read(sandbox: PythonSession) -> None:
    code = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('text')\nopen('/tmp/x', 'w').write('no')"
    await run(sandbox, code)
    assert await sandbox.list_files() == ["a/b/c"]
    assert await sandbox.read_file("a/b/c") == b"text"
    await sandbox.write_file("a/b/c", b"mine")
    assert await shown(sandbox, "open('a/b/c').read(), open('a/b/c', 'a').write('!')") == "('mine', 1)\n"


async def test_the_hash_seed_is_fixed(factory: PythonSandbox) -> None:
    one, two = await factory.start(small()), await factory.start(small())
    code = "hash('agenthub'), list({'a', 'b', 'c', 'd'})"
    assert await shown(one, code) == await shown(two, code)


async def test_random_numbers_differ_from_box_to_box(factory: PythonSandbox) -> None:
    one, two = await factory.start(small()), await factory.start(small())
    assert await shown(one, "import random; random.random()") != await shown(two, "import random; random.random()")
