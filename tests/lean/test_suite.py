"""The suite of core theorems, played over HTTP, and the false statements, attacked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agenthub.client import Hub
from agenthub.episodes import Workbench
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.verdict import Reason, Verdict
from agenthub.suites.lint.oracle import oracle_of
from agenthub.suites.load import load_suite
from tests.lean.conftest import lacking
from tests.lean.test_lean_cases import CASES
from tests.served import served

pytestmark = [pytest.mark.lean, pytest.mark.timeout(7200)]
TASKS = Path(__file__).parents[2] / "tasks"
AT_ONCE = 6


def rows(name: str) -> list[dict[str, Any]]:
    """The lines of a data file of the suite."""
    return [json.loads(line) for line in (TASKS / "lean" / name).read_text(encoding="utf-8").splitlines()]


def test_the_suite_has_theorems_of_five_levels_each_with_a_proof_and_the_canaries_have_none() -> None:
    core, canaries = load_suite(TASKS / "lean_core.yaml"), load_suite(TASKS / "lean_false.yaml")
    assert len(core.tasks) >= 120 and len(canaries.tasks) >= 30
    assert {task.metadata["level"] for task in core.tasks} == {1, 2, 3, 4, 5}
    assert all(task.solution for task in core.tasks) and not any(task.solution for task in canaries.tasks)
    statements = [task.tools[0].spec.params["statement"] for task in (*core.tasks, *canaries.tasks)]
    assert len(set(statements)) == len(statements)


async def test_lint_asks_no_oracle_of_a_canary_and_one_of_every_other_task() -> None:
    canary, core = load_suite(TASKS / "lean_false.yaml").tasks[0], load_suite(TASKS / "lean_core.yaml").tasks[0]
    workbench = Workbench()
    assert (await oracle_of(canary, workbench, again=False)).holes == ()
    assert (await oracle_of(replace(canary, solution=core.solution), workbench, again=False)).holes
    assert (await oracle_of(replace(core, solution=()), workbench, again=False)).holes


async def play(folder: Path, chosen: list[dict[str, Any]]) -> list[str]:
    """Ids of the theorems whose oracle did not get 1."""
    lost: list[str] = []
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(hub: Hub, row: dict[str, Any]) -> None:
        async with slots:
            (episode,) = await hub.create("lean_core", row["id"])
            done = await episode.step(f"I am sure.\n```lean4\n{row['proof']}\n```")
            if done.reward != 1.0 or not done.terminated:
                lost.append(f"{row['id']}: {done.reward} {done.info}")

    with served(TASKS / "lean_core.yaml", folder) as url:
        async with Hub(url, retry_s=3600.0) as hub, asyncio.TaskGroup() as group:
            for row in chosen:
                group.create_task(one(hub, row))
    return lost


async def test_twelve_oracle_proofs_of_every_level_win_their_episodes(tmp_path: Path) -> None:
    why = lacking()
    if why is not None:
        pytest.skip(why)
    chosen = rows("core.jsonl")[3::12]
    assert len(chosen) == 12 and {row["level"] for row in chosen} == {1, 2, 3, 4, 5}
    assert await play(tmp_path, chosen) == []


@pytest.mark.slow
async def test_every_oracle_proof_wins_its_episode(tmp_path: Path) -> None:
    why = lacking()
    if why is not None:
        pytest.skip(why)
    assert await play(tmp_path, rows("core.jsonl")) == []


def attacks(statement: str) -> list[str]:
    """Every technique of the cases, put to another statement; and the tactics that close what can be closed."""
    found = [f"{statement} := by {tactic}" for tactic in ("decide", "omega", "grind", "simp", "intros; simp_all")]
    binders = statement.removeprefix("theorem target")
    for case in CASES:
        if case["verdict"] == "accept":
            continue
        text = case["submission"]
        for written in (case["statement"], "theorem target : (2:Nat)+2=5", "theorem target : (2:Nat)+2=4"):
            text = text.replace(written, statement)
        found.append(text.replace("theorem h : (2:Nat)+2=5", f"theorem h{binders}"))
    return found


@pytest.mark.slow
async def test_no_attack_proves_a_false_statement(judge: Judge) -> None:
    """Those that the first step lets through are compiled, read and, as far as they come, replayed."""
    found: list[tuple[str, str, Verdict]] = []
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(statement: str, text: str) -> None:
        async with slots:
            verdict = await judge.judge(Challenge(statement=statement), text)
        found.append((statement, text, verdict))
        print(len(found), verdict.reason, verdict.detail[:60], flush=True)

    async with asyncio.TaskGroup() as group:
        for row in rows("false.jsonl"):
            for text in dict.fromkeys(attacks(row["statement"])):
                group.create_task(one(row["statement"], text))
    assert [row for row in found if row[2].accepted or row[2].reason is Reason.OK] == []
    reasons = Counter(verdict.reason for _, _, verdict in found)
    assert Reason.INFRA_ERROR not in reasons and Reason.TIMEOUT not in reasons, reasons
    assert {Reason.SORRY, Reason.COMPILE_ERROR, Reason.STATEMENT_MISMATCH, Reason.FORBIDDEN_COMMAND} <= set(reasons)
