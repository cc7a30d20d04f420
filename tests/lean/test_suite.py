"""The suite of core theorems, played over HTTP, and the false statements, attacked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agenthub.client import Hub
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.verdict import Verdict
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


async def test_oracle_proofs_of_every_level_win_their_episodes(tmp_path: Path) -> None:
    why = lacking()
    if why is not None:
        pytest.skip(why)
    assert await play(tmp_path, rows("core.jsonl")[5::24][:6]) == []


@pytest.mark.slow
async def test_twelve_oracle_proofs_win_their_episodes(tmp_path: Path) -> None:
    why = lacking()
    if why is not None:
        pytest.skip(why)
    assert await play(tmp_path, rows("core.jsonl")[5::12][:12]) == []


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
    accepted: list[tuple[str, str]] = []
    slots = asyncio.Semaphore(8)

    async def one(statement: str, text: str) -> Verdict:
        async with slots:
            verdict = await judge.judge(Challenge(statement=statement), text, seconds=60.0)
            if verdict.accepted:
                accepted.append((statement, text))
            return verdict

    async with asyncio.TaskGroup() as group:
        for row in rows("false.jsonl"):
            for text in attacks(row["statement"]):
                group.create_task(one(row["statement"], text))
    assert not accepted
