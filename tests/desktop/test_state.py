"""The check `world_state`: getters and metrics, both ways to be infeasible, and worlds that lie or are gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agenthub.errors import BoxLost, TaskBroken
from agenthub.records import frozen
from agenthub.rewards.score import Context, Workspace
from agenthub.rewards.state import world_state
from agenthub.sandbox import CodeBox, FileChange, SandboxSpec
from tests.fakes import fake_task

FILES = {"a.txt": b"Four \nlines\n", "n.txt": b"1,000.0", "bad.sqlite": b"SQLite format 3\0" + b"\xff" * 200}


def context(said: str | None = None, lost: bool = False) -> Context:
    async def facts(uses: str) -> Mapping[str, Any]:
        if lost:
            raise BoxLost("out of memory")
        return {"infeasible": said, "processes": [{"program": "/usr/bin/pad", "argv": []}]}

    async def changes(uses: str) -> tuple[FileChange, ...]:
        return tuple(FileChange(path=path, data=data) for path, data in FILES.items())

    async def box(uses: str, spec: SandboxSpec | None = None) -> CodeBox:
        raise AssertionError("no box is needed")

    workspace = Workspace(changes=changes, box=box, facts=facts)
    return Context(task=fake_task(), turns=(), answer=None, code_box=box, workspace=workspace)


def one(func: str, expected: Any = None, **result: Any) -> dict[str, Any]:
    return {"result": result, "func": func, "expected": expected}


@pytest.mark.parametrize(
    ("test", "wins"),
    [
        (one("equals", "Four\nlines", type="file", path="a.txt"), 1.0),
        (one("equals", "four\nlines", type="file", path="a.txt"), 0.0),
        (one("contains", ["Four", "nes"], type="file", path="a.txt"), 1.0),
        (one("lacks", "five", type="file", path="a.txt"), 1.0),
        (one("lacks", "five", type="file", path="gone.txt"), 0.0),
        (one("lines", ["lines", "Four"], type="file", path="a.txt"), 1.0),
        (one("number", 1000, type="file", path="n.txt"), 1.0),
        (one("number", 1000, type="file", path="a.txt"), 0.0),
        (one("absent", type="file", path="gone.txt"), 1.0),
        (one("excludes", ["pad"], type="programs"), 0.0),
        (one("equals", [[1]], type="rows", path="bad.sqlite", query="SELECT 1 FROM sqlite_master"), 0.0),
        (one("equals", [[1]], type="rows", path="gone.sqlite", query="SELECT 1"), 0.0),
    ],
)
async def test_a_getter_and_a_metric(test: dict[str, Any], wins: float) -> None:
    assert (await world_state(context(), frozen({"tests": [test]}))).value == wins


async def test_one_of_several_is_enough_where_they_are_joined_by_or() -> None:
    tests = [one("exists", type="file", path="gone.txt"), one("exists", type="file", path="a.txt")]
    assert (await world_state(context(), frozen({"tests": tests}))).value == 0.0
    assert (await world_state(context(), frozen({"tests": tests, "conj": "or"}))).value == 1.0


async def test_infeasible_is_right_only_where_it_is_true() -> None:
    passes = {"tests": [one("exists", type="file", path="a.txt")]}
    assert (await world_state(context("no such program"), frozen(passes))).value == 0.0
    assert (await world_state(context("no such program"), frozen({"infeasible": True}))).value == 1.0
    assert (await world_state(context(), frozen({"infeasible": True}))).value == 0.0


async def test_a_world_that_is_lost_is_worth_nothing_and_a_bad_query_is_the_tasks_fault() -> None:
    passes = {"tests": [one("exists", type="file", path="a.txt")]}
    assert (await world_state(context(lost=True), frozen(passes))).value == 0.0
    with pytest.raises(TaskBroken, match="args"):
        await world_state(context(), frozen({"tests": [one("exists", type="rows", path="x")]}))
