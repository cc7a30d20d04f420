"""Every case of the file gets its verdict on the real toolchain, in any order on one pool."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.verdict import Assurance, Reason, Verdict

pytestmark = [pytest.mark.lean, pytest.mark.timeout(3600)]
CASES_FILE = Path(os.environ.get("AGENTHUB_LEAN_CASES") or Path(__file__).with_name("lean_cases.json"))
CASES: list[dict[str, Any]] = json.loads(CASES_FILE.read_text(encoding="utf-8"))["cases"]


def complaint(case: dict[str, Any], verdict: Verdict) -> str | None:
    """What is wrong with a verdict."""
    told = f"{case['id']}: {verdict.reason} ({verdict.assurance}): {verdict.detail}"
    if case["verdict"] == "accept":
        return None if verdict.accepted and verdict.assurance is Assurance.REPLAYED else told
    if verdict.reason is Reason.OK or (case["reasons"] and verdict.reason not in case["reasons"]):
        return f"{told}; expected one of {case['reasons']}"
    return None


async def judged(judge: Judge, rows: list[tuple[dict[str, Any], Challenge, str]]) -> list[str]:
    """Judge all at once. Returns the complaints."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(judge.judge(challenge, text)) for _, challenge, text in rows]
    found = [complaint(case, task.result()) for (case, _, _), task in zip(rows, tasks, strict=True)]
    return [one for one in found if one]


async def test_lean_cases(judge: Judge) -> None:
    toolchain = judge.compiler.toolchain
    before = toolchain.digest()
    rows = [
        (case, Challenge(statement=case["statement"], definitions=case["definitions"]), case["submission"])
        for case in CASES
    ]
    random.Random(os.urandom(8)).shuffle(rows)
    complaints = await judged(judge, rows)
    assert not complaints, "\n".join(complaints)
    assert toolchain.digest() == before


def body_of(case: dict[str, Any]) -> str | None:
    """What a case's submission has behind `:=`, where it is the statement and nothing else."""
    head, sign, tail = case["submission"].partition(":=")
    plain = [re.sub(r"[\s()]", "", text) for text in (head, case["statement"])]
    if not sign or plain[0] != plain[1] or "\ntheorem" in tail:
        return None
    tail = tail.strip()
    return tail.removeprefix("by").strip() if tail.startswith("by") else f"exact {tail}"


@pytest.mark.slow
async def test_cases_that_are_one_proof_get_the_same_verdict_as_a_body(judge: Judge) -> None:
    rows = []
    for case in CASES:
        body = body_of(case)
        if body is not None:
            challenge = Challenge(statement=case["statement"], definitions=case["definitions"], mode="body")
            rows.append((case, challenge, body))
    assert rows
    complaints = await judged(judge, rows)
    assert not complaints, "\n".join(complaints)
