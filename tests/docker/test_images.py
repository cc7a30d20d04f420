"""`agenthub images build` builds a suite's Dockerfiles; what is not built yet is refused with the command that does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agenthub.cli.images import app
from agenthub.episodes import Workbench
from agenthub.errors import UserError
from agenthub.suites.lint import Plan, lint, play, won
from agenthub.suites.load import load_suite
from agenthub.wire import Action
from tests.docker.conftest import BASE

pytestmark = pytest.mark.docker

TRUSTING = """
schema: agenthub.suite/1
suite: {name: built, version: "1"}
tasks:
  - id: status
    prompt: {user: Repair half.py.}
    tools: [{uses: shell, config: {workdir: /repo}}]
    sandbox: {isolation: docker, build: {context: image}, resources: {memory: 256M}}
    verifier:
      checks:
        - uses: shell_tests
          args:
            command: python3 check.py
            files: [{path: check.py, content: "from half import half\\nassert half(7) == 3\\n"}]
    protocol: native
    solution:
      turns:
        - '<tool_call>{"name": "shell", "arguments": {"command": "sed -i s,n$,n//2, half.py; cat half.py"}}</tool_call>'
        - done
"""
SUITE = """
schema: agenthub.suite/1
suite: {name: built, version: "1"}
tasks:
  - id: poem
    prompt: {user: Which word ends the poem?}
    tools: [{uses: shell, config: {workdir: /repo}}]
    sandbox: {isolation: docker, require: [limits], build: {context: image}, resources: {memory: 256M}}
    target: {answer: violet}
    verifier: {checks: [{uses: exact}]}
    protocol: native
    solution:
      turns:
        - '<tool_call>{"name": "shell", "arguments": {"command": "tail -n 1 poem.txt"}}</tool_call>'
        - violet
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def suite(tmp_path: Path, api: Any) -> Iterator[Path]:
    context = tmp_path / "image"
    context.mkdir()
    (context / "poem.txt").write_text(f"{tmp_path.name}\nroses\nviolet\n", encoding="utf-8")
    (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY poem.txt /repo/poem.txt\n", encoding="utf-8")
    path = tmp_path / "built.yaml"
    path.write_text(SUITE, encoding="utf-8")
    yield path
    for row in api.images("agenthub/build-built"):
        api.remove_image(row["Id"], force=True)


async def test_an_image_is_refused_until_it_is_built_and_never_built_by_playing(suite: Path, api: Any) -> None:
    (task,) = load_suite(suite).tasks
    bench = Workbench()
    try:
        with pytest.raises(UserError, match=r"no image 'agenthub/build-built:\w+'.*`agenthub images build built`"):
            await play(task, bench, lambda turn: Action(text=""))
        assert api.images(task.tools[0].spec.image) == []
        assert run("list", str(suite)).output.endswith("not built\n")
        made = run("build", str(suite))
        assert made.exit_code == 0 and "COPY poem.txt" in made.output, made.output
        assert "is built" in run("build", str(suite)).output
        assert run("list", str(suite)).output == f"{task.tools[0].spec.image}: built\n"
        end = await play(task, bench, lambda turn: Action(text=task.solution[turn]))
        assert won(end, task) and "violet" in end.turns[0].observations[0].text
    finally:
        await bench.close()


def test_a_dockerfile_that_does_not_build_is_told_with_its_last_lines(suite: Path) -> None:
    (suite.parent / "image" / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo so far && false\n", encoding="utf-8")
    result = run("build", str(suite))
    assert isinstance(result.exception, UserError)
    assert "Dockerfile does not build" in str(result.exception) and "so far" in str(result.exception)


def _trusting(suite: Path) -> None:
    context = suite.parent / "image"
    (context / "half.py").write_text("def half(n): return n\n", encoding="utf-8")
    (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY half.py /repo/half.py\n", encoding="utf-8")
    suite.write_text(TRUSTING, encoding="utf-8")
    assert run("build", str(suite)).exit_code == 0


@pytest.mark.slow
async def test_a_verifier_that_trusts_the_exit_status_is_a_hole(suite: Path) -> None:
    _trusting(suite)
    bench = Workbench()
    try:
        holes = await lint(load_suite(suite).tasks, bench, Plan(episodes=2))
    finally:
        await bench.close()
    assert {hole.technique for hole in holes} == {"exit_zero", "fake_verdict"}
