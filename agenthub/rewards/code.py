"""Checks that run code: unit tests, and cases of standard input and output.

Candidate code and test code never share a box. The tests run in a box of their own and call the candidate's through the
hub in plain typed values, so that nothing the candidate redefines is there when a result is compared. The box of the
candidate holds neither tests nor expected values.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from agenthub.config import ConfigModel
from agenthub.errors import TaskBroken, UnknownName
from agenthub.records import frozen
from agenthub.rewards.arguments import check
from agenthub.rewards.score import Context, Score
from agenthub.sandbox import CodeBox, Plain, SandboxSpec
from agenthub.suites.task import Task

__all__ = ["candidate_source", "io_cases", "unittest"]

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_FENCED = re.compile(r"\A\s*```(?:python|py)?\n(.*?)\n?```\s*\Z", re.DOTALL)
_DRIVER = """
def agenthub_{function}(candidate):
    global {entry}
    {entry} = candidate
    {function}(candidate)
"""


class _CodeArgs(ConfigModel):
    candidate: Literal["answer", "last_code"] = "last_code"
    """Where the code is: the final answer (a fence around it is dropped), or the `code` of the episode's last call."""
    sandbox: str = "python"
    """Registry name of the sandbox kind whose grading boxes are used."""
    seconds: Seconds = 10.0
    """For each test function or case, and for loading the candidate."""
    partial: bool = False
    """True: the score is the share that passed; else 1 only where all did."""


class UnittestArgs(_CodeArgs):
    """Arguments of `unittest`."""

    tests: str
    """Python that defines the test functions; each takes the candidate's function as its argument."""
    functions: tuple[str, ...] = ("check",)
    """The test functions, in the order in which they run."""
    entry: str
    """Name of the candidate's function. Where the tests call it by that name, they call the candidate's too."""
    header: str = ""
    """Trusted code that is loaded before the tests and, in the other box, before the candidate."""


class Case(ConfigModel):
    """One run of the candidate as a script."""

    stdin: str = ""
    stdout: str


class IoCasesArgs(_CodeArgs):
    """Arguments of `io_cases`."""

    cases: tuple[Case, ...] = Field(min_length=1)
    language: str | None = None
    """One of the suite's languages, which the program is in; Python where absent."""
    compare: Literal["lines", "exact", "tokens"] = "lines"
    """lines: white space at the ends of lines and empty lines at the end do not count. tokens: only words do."""

    @model_validator(mode="after")
    def _tell_apart(self) -> Self:
        if all(not _normal(case.stdout.encode(), self.compare) for case in self.cases):
            raise ValueError("every case expects no output, which a program that does nothing gives")
        return self


def candidate_source(context: Context, where: str) -> str | None:
    """The candidate's code; None where the episode has none."""
    if where == "answer":
        fenced = _FENCED.match(context.answer or "")
        return fenced[1] if fenced else context.answer
    codes = [call.arguments.get("code") for turn in context.turns for call in turn.calls]
    return next((code for code in reversed(codes) if isinstance(code, str)), None)


def _tests_compile(task: Task, args: UnittestArgs) -> None:
    try:
        tree = ast.parse(f"{args.header}\n{args.tests}")
    except (SyntaxError, ValueError) as error:
        raise TaskBroken(f"the tests are no Python: {error}") from error
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if not args.entry.isidentifier() or keyword.iskeyword(args.entry) or args.entry in args.functions:
        raise TaskBroken(f"entry is {args.entry!r}; expected the name of a function that is no test function")
    lacking = [name for name in args.functions if name not in defined]
    if lacking or not args.functions:
        raise TaskBroken(f"the tests define no function {', '.join(lacking) or 'to run'}")


@check(UnittestArgs, _tests_compile)
async def unittest(context: Context, args: UnittestArgs) -> Score:
    """1 where every test function returns; an assertion, any other error or a spent time fails it.

    Raises:
        TaskBroken: the tests do not load.
        HostFault: a box failed on our side.
    """
    _tests_compile(context.task, args)
    source = candidate_source(context, args.candidate)
    if source is None or not source.strip():
        return Score(value=0.0, reason="no code was given")
    async with _box(context, args.sandbox) as tests, _box(context, args.sandbox) as candidate:
        drivers = "".join(_DRIVER.format(function=name, entry=args.entry) for name in args.functions)
        broken = await tests.load(f"{args.header}\n{args.tests}\n{drivers}", timeout_s=args.seconds)
        if broken.error is not None:
            raise TaskBroken(f"the tests do not load: {broken.error}")
        for trusted, code in ((True, args.header), (False, source)):
            loaded = await candidate.load(code, timeout_s=args.seconds) if code.strip() else Plain()
            if loaded.error is not None and trusted:
                raise TaskBroken(f"the header does not load: {loaded.error}")
            if loaded.error is not None:
                return Score(value=0.0, reason=f"the code does not load: {_line(loaded.error)}")
        errors = [await _drive(tests, candidate, args, name) for name in args.functions]
    return _share([error is None for error in errors], args.partial, next(filter(None, errors), ""))


async def _drive(tests: CodeBox, candidate: CodeBox, args: UnittestArgs, function: str) -> str | None:
    """Run one test function: why it failed, or None. Only the error's name: its text may quote an expected value."""

    async def call(positional: Sequence[Any], named: Mapping[str, Any]) -> Plain:
        return await candidate.invoke(args.entry, positional, named, timeout_s=args.seconds)

    done = await tests.drive(f"agenthub_{function}", candidate=call, timeout_s=args.seconds)
    return None if done.error is None and not done.lost else f"{function}: {_name(done.error or 'the box ended')}"


def _speaks(task: Task, args: IoCasesArgs) -> None:
    if args.language is not None and args.language not in task.languages:
        raise UnknownName("language of the suite", args.language, task.languages)


async def _case_box(context: Context, args: IoCasesArgs) -> CodeBox:
    """A fresh box for one case, of the language where one is named."""
    if args.language is None:
        return await context.code_box(args.sandbox)
    if context.workspace is None:
        raise TaskBroken("a program in a language of the suite needs a place to run")
    _speaks(context.task, args)
    base = next((tool.spec for tool in context.task.tools), SandboxSpec())
    params = frozen({"language": context.task.languages[args.language]})
    return await context.workspace.box("language", replace(base, files=frozen(), params=params))


@check(IoCasesArgs, _speaks)
async def io_cases(context: Context, args: IoCasesArgs) -> Score:
    """1 where the program, in a fresh box for each case, exits with 0 and writes what the case expects.

    Raises:
        HostFault: a box failed on our side.
    """
    source = candidate_source(context, args.candidate)
    if source is None or not source.strip():
        return Score(value=0.0, reason="no code was given")
    passed: list[bool] = []
    reason = ""
    for index, case in enumerate(args.cases):
        box = await _case_box(context, args)
        try:
            ended, output = await box.run(source, stdin=case.stdin.encode(), timeout_s=args.seconds)
        finally:
            await box.close()
        failure = _failure(ended, output, case, args.compare)
        passed.append(failure is None)
        reason = reason or (f"case {index}: {failure}" if failure else "")
        if failure is not None and not args.partial:
            break
    return _share(passed, args.partial, reason)


def _failure(ended: Plain, output: bytes, case: Case, compare: str) -> str | None:
    if ended.error is not None:
        return _line(ended.error)
    if type(ended.value) is not int or ended.value != 0:
        return f"exit status {ended.value}"
    same = _normal(output, compare) == _normal(case.stdout.encode(), compare)
    return None if same else "the output is another one"


def _normal(output: bytes, compare: str) -> bytes:
    if compare == "exact":
        return output
    if compare == "tokens":
        return b" ".join(output.split())
    return b"\n".join(line.rstrip() for line in output.rstrip().splitlines())


def _share(passed: Sequence[bool], partial: bool, reason: str) -> Score:
    value = sum(passed) / len(passed) if partial else float(all(passed))
    return Score(value=value, reason=reason)


def _name(error: str) -> str:
    return _line(error.partition(":")[0])


def _line(text: str) -> str:
    """The first line of what the candidate's box said, shortened."""
    first = text.strip().splitlines()[0] if text.strip() else "failed"
    return first if len(first) <= 200 else f"{first[:197]}..."


@asynccontextmanager
async def _box(context: Context, uses: str) -> AsyncIterator[CodeBox]:
    box = await context.code_box(uses)
    try:
        yield box
    finally:
        await box.close()
