"""The check `shell_tests` without an engine: what it copies, what it leaves out, what it believes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agenthub.errors import BoxLost, TaskBroken
from agenthub.records import Message, frozen
from agenthub.rewards.score import Context, Score, Workspace
from agenthub.rewards.shell import PROTECT, protected, shell_tests
from agenthub.sandbox import CodeBox, FileChange, Plain, SandboxSpec
from agenthub.suites.task import Task, ToolUse, Verifier


class Runner:
    """A grading box that ends as it is told."""

    def __init__(self, ended: Plain, output: bytes = b"") -> None:
        self.ended, self.output, self.spec, self.closed = ended, output, SandboxSpec(), False

    async def run(self, source: str, *, stdin: bytes, timeout_s: float) -> tuple[Plain, bytes]:
        return self.ended, self.output

    async def close(self) -> None:
        self.closed = True


async def score(runner: Runner, made: tuple[FileChange, ...] | Exception = (), **args: Any) -> Score:
    async def changes(uses: str) -> tuple[FileChange, ...]:
        if isinstance(made, Exception):
            raise made
        return made

    async def box(uses: str, spec: SandboxSpec) -> CodeBox:
        runner.spec = spec
        return runner  # type: ignore[return-value]

    async def none(uses: str) -> CodeBox:
        raise AssertionError

    use = ToolUse(name="sh", uses="shell", spec=SandboxSpec(isolation="docker", files=frozen({"given": b"1"})))
    task = Task(
        id="t", suite="s", split="x", messages=(Message(role="user", content="?"),), protocol="native",
        tools=(use,), verifier=Verifier(checks=()),
    )  # fmt: skip
    context = Context(task=task, turns=(), answer=None, code_box=none, workspace=Workspace(changes=changes, box=box))
    found: Score = await shell_tests(context, {"command": "make test"} | args)
    return found


async def test_the_exit_status_decides() -> None:
    assert (await score(Runner(Plain(value=0)))).value == 1.0
    assert (await score(Runner(Plain(value=1)))).value == 0.0
    assert (await score(Runner(Plain(value=False)))).value == 0.0
    assert (await score(Runner(Plain(error="out of time", lost=True)))).value == 0.0


async def test_named_tests_must_be_seen_to_pass() -> None:
    runner = Runner(Plain(value=0), b"PASSED a::b\nFAILED c\nok 3 - third\n")
    assert (await score(runner, expect=("a::b", "third"))).value == 1.0
    assert (await score(runner, expect=("a::b", "c"))).value == 0.0
    assert (await score(runner, expect=("a::b", "c"), partial=True)).value == 0.5
    assert runner.closed


async def test_the_box_gets_given_files_then_changes_then_tests() -> None:
    runner = Runner(Plain(value=0))
    made = (FileChange(path="src/a.py", data=b"2"), FileChange(path="tests/conftest.py", data=b"bad"))
    await score(runner, made, files=[{"path": "tests/t.py", "content": "3"}])
    assert [change.path for change in runner.spec.params["changes"]] == ["given", "src/a.py"]
    assert dict(runner.spec.files) == {"tests/t.py": b"3"}


async def test_a_lost_workspace_is_worth_nothing() -> None:
    assert (await score(Runner(Plain(value=0)), BoxLost("killed"))).value == 0.0


@pytest.mark.parametrize("args", [{"pattern": "("}, {"pattern": "x"}, {"partial": True}, {"comand": "x"}])
async def test_arguments_that_cannot_be_used_break_the_task(args: Mapping[str, Any]) -> None:
    with pytest.raises(TaskBroken, match=r"^args"):
        await score(Runner(Plain(value=0)), **args)


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("conftest.py", True), ("a/b/conftest.py", True), ("x.pth", True), (".git", True),
        (".git/hooks/pre-commit", True),
        ("src/a.py", False), (".gitignore", False), ("conftest.py.txt", False), ("my.git/a", False),
    ],
)  # fmt: skip
def test_what_reaches_the_runner_from_outside_is_left_out(path: str, left_out: bool) -> None:
    assert protected(path, PROTECT) is left_out
