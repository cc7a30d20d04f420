"""Kimina's own clients are answered in the shape that they read, from the boxes of the hub's Lean tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialects.peers import said_by
from tests.lean.conftest import lacking
from tests.served import served

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.timeout(1800)
async def test_the_real_clients_tell_proofs_from_errors_and_from_sorry(tmp_path: Path, kimina: str) -> None:
    why = lacking()
    if why is not None:
        pytest.skip(why)
    snippets = (
        "theorem a : 1 = 1 := rfl",
        "theorem a : 1 = 1 := rfl\ntheorem b : 1 = 2 := rfl",
        "theorem a : 1 = 2 := sorry",
        "axiom a : 1 = 2",
    )
    with served(TASKS / "lean_core.yaml", tmp_path) as url:
        *found, again = await said_by("kimina", url, "600", *snippets)
    by_id = {row["id"]: row for row in found}
    assert [by_id[f"s{at}"]["status"] for at in range(4)] == ["valid", "lean_error", "sorry", "lean_error"]
    wrong = [one for one in by_id["s1"]["response"]["messages"] if one["severity"] == "error"]
    assert wrong and {one["pos"]["line"] for one in wrong} == {2}
    assert again["id"] == "s0" and again["status"] == "valid"
