"""A whole program in a grading box, with everything that it wrote and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agenthub.errors import BoxLost, UserError
from agenthub.sandbox import ProgramRun, Programs, SandboxFactory, SandboxSpec
from tests.sandboxes.boxes import SMALL, need_jail, python_factory


@pytest.fixture
async def factory() -> AsyncIterator[SandboxFactory]:
    need_jail()
    async with python_factory() as made:
        yield made


async def run(factory: SandboxFactory, source: str, stdin: bytes = b"", run_s: float = 20.0) -> ProgramRun:
    box = await factory.code_box(SandboxSpec(limits=SMALL))
    assert isinstance(box, Programs)
    try:
        runs = await box.program(source, stdin=stdin, compile_s=1, run_s=run_s)
    finally:
        await box.close()
    assert list(runs) == ["run"]
    return runs["run"]


async def test_streams_and_status_are_those_of_the_program(factory: SandboxFactory) -> None:
    done = await run(factory, "import sys\nprint(input())\nsys.stderr.write('e')\nsys.exit(7)", b"in\n")
    assert (done.code, done.out, done.err) == (7, b"in\n", b"e")
    done = await run(factory, "raise SystemExit('why')")
    assert (done.code, done.err) == (1, b"why\n")
    assert (await run(factory, "if __name__ == '__main__': print(1)")).out == b"1\n"


async def test_an_error_is_written_as_an_interpreter_writes_it(factory: SandboxFactory) -> None:
    done = await run(factory, "def f():\n    return {}['x']\n\nf()")
    assert done.code == 1
    assert done.err.startswith(
        b'Traceback (most recent call last):\n  File "<solution>", line 4, in <module>\n    f()\n'
    )
    assert done.err.endswith(b"KeyError: 'x'\n") and b"grading" not in done.err
    assert b"SyntaxError" in (await run(factory, "(")).err


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("import os; os._exit(5)", 5),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("x = 'a' * (1 << 30)", None),
        ("import os\nfor n in range(3, 40):\n    try: os.write(n, b'x' * 64)\n    except OSError: pass", None),
    ],
)
async def test_a_program_that_ends_its_box_did_not_succeed(
    factory: SandboxFactory, source: str, code: int | None
) -> None:
    try:
        done = await run(factory, source)
    except BoxLost:
        assert code is None
    else:
        assert done.code != 0 and code in (None, done.code)


async def test_a_spent_time_has_no_status_and_keeps_what_was_written(factory: SandboxFactory) -> None:
    done = await run(factory, "print(1, flush=True)\nwhile True: pass", run_s=1.0)
    assert (done.code, done.out) == (None, b"1\n") and done.seconds >= 1.0


async def test_a_flood_is_cut_at_the_boxs_limit(factory: SandboxFactory) -> None:
    done = await run(factory, "print('x' * 3_000_000)")
    assert done.code == 0 and len(done.out) == SMALL.output_bytes


async def test_files_come_and_go(factory: SandboxFactory) -> None:
    box = await factory.code_box(SandboxSpec(limits=SMALL))
    assert isinstance(box, Programs)
    await box.write_file("in.txt", b"a")
    await box.program("open('out.txt', 'w').write(open('in.txt').read() * 2)", stdin=b"", compile_s=1, run_s=20)
    assert await box.read_file("out.txt") == b"aa"
    with pytest.raises(UserError):
        await box.write_file("../x", b"")
    await box.close()
    with pytest.raises(BoxLost):
        await box.program("", stdin=b"", compile_s=1, run_s=1)
