"""The check `shell_tests`: a task's test command, in a fresh box that has what the episode changed.

The shape of Multi-SWE-RL and Harbor tasks. The box is of the same image and never saw the policy; of the policy comes
only what it changed in the working folder, without what the task protects, and the task's own test files lie on top.
The exit status is the engine's word. A test process that loads the code under test still shares its process with it:
what that code prints or exits with is believed, so such tasks name the tests that must be seen to pass (`expect`).
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from agenthub.config import ConfigModel
from agenthub.errors import BoxLost, TaskBroken, UserError
from agenthub.records import frozen
from agenthub.rewards.arguments import check
from agenthub.rewards.score import Context, Score
from agenthub.sandbox import FileChange, SandboxSpec
from agenthub.suites.task import Task

__all__ = ["ShellTestsArgs", "protected", "shell_tests"]

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]

PROTECT = (
    ".git/*",
    "*.pth",
    "conftest.py",
    "pytest.ini",
    "sitecustomize.py",
    "usercustomize.py",
)
"""Files through which a change would reach the test runner without being part of the program."""


class TestFile(ConfigModel):
    """A file of the tests; whatever the policy put there gives way."""

    __test__ = False
    path: str
    content: str


class ShellTestsArgs(ConfigModel):
    """Arguments of `shell_tests`."""

    command: str
    """Runs in the working folder; passes where it exits with 0."""
    sandbox: str = "shell"
    """Registry name of the sandbox kind whose workspace is graded."""
    files: tuple[TestFile, ...] = ()
    """The hidden tests."""
    protect: tuple[str, ...] = PROTECT
    """Patterns of paths, or of their last names, whose changes are left out."""
    expect: tuple[str, ...] = ()
    """Names of tests that must be seen to pass; the exit status then does not count."""
    pattern: str = r"^(?:PASSED |ok \d+ (?:- )?)(?P<name>.+?)\s*$"
    """A line of a test that passed, with its `name`; pytest's -rA and TAP where absent."""
    partial: bool = False
    """True: the score is the share of `expect` that passed."""
    seconds: Seconds = 60.0

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            named = "name" in re.compile(self.pattern).groupindex
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None
        if not named:
            raise ValueError("pattern has no group (?P<name>...)")
        if self.partial and not self.expect:
            raise ValueError("partial needs the tests to expect")
        return self


def protected(path: str, patterns: tuple[str, ...]) -> bool:
    """True where a pattern matches the path or the name at its end; `folder/*` matches everything below it."""
    name = path.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(name, pattern) or path == pattern.removesuffix("/*")
        for pattern in patterns
    )


def _has_tool(task: Task, args: ShellTestsArgs) -> None:
    _spec(task, args)


def _spec(task: Task, args: ShellTestsArgs) -> SandboxSpec:
    for tool in task.tools:
        if tool.uses == args.sandbox:
            return tool.spec
    raise TaskBroken(f"the task has no tool of the sandbox {args.sandbox!r}")


@check(ShellTestsArgs, _has_tool)
async def shell_tests(context: Context, args: ShellTestsArgs) -> Score:
    """1 where the test command passes on what the episode left.

    Raises:
        TaskBroken: the task has no such tool.
        HostFault: a box failed on our side.
    """
    spec = _spec(context.task, args)
    if context.workspace is None:
        raise TaskBroken("shell_tests grades a workspace, and the episode has none")
    try:
        made = await context.workspace.changes(args.sandbox)
    except (BoxLost, UserError) as lost:
        return Score(value=0.0, reason=f"the workspace cannot be read: {lost}")
    kept = tuple(change for change in made if not protected(change.path, args.protect))
    try:
        box = await context.workspace.box(args.sandbox, _graded(spec, args, kept))
    except BoxLost as lost:
        return Score(value=0.0, reason=f"what was changed cannot be graded: {lost}")
    try:
        ended, output = await box.run(args.command, stdin=b"", timeout_s=args.seconds)
    finally:
        await box.close()
    if ended.error is not None:
        return Score(value=0.0, reason=f"the tests did not end: {ended.error}")
    if not args.expect:
        passed = type(ended.value) is int and ended.value == 0
        return Score(value=float(passed), reason="" if passed else f"the tests ended with status {ended.value}")
    return _expected(args, output.decode("utf-8", errors="replace"))


def _graded(spec: SandboxSpec, args: ShellTestsArgs, kept: tuple[FileChange, ...]) -> SandboxSpec:
    # The task's visible files first, then what became of them, then the tests.
    given = tuple(FileChange(path=path, data=data) for path, data in spec.files.items())
    files = {file.path: file.content.encode() for file in args.files}
    return replace(spec, files=frozen(files), params=frozen({**spec.params, "changes": given + kept}))


def _expected(args: ShellTestsArgs, output: str) -> Score:
    seen = {found["name"] for found in re.finditer(args.pattern, output, re.MULTILINE)}
    missing = [name for name in args.expect if name not in seen]
    share = 1.0 - len(missing) / len(args.expect)
    reason = f"{len(missing)} of {len(args.expect)} tests were not seen to pass" if missing else ""
    return Score(value=share if args.partial else float(not missing), reason=reason)
