"""Files and rows in the shape of miniF2F become challenges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agenthub.errors import UnknownName, UserError
from agenthub.generators.lean import generate, of_file, of_row
from agenthub.sandboxes.lean.challenge import Challenge

FILE = """import Std
set_option maxHeartbeats 0
open Nat

def double (n : Nat) : Nat := n + n

/-- The first. -/
theorem first (n : Nat) : double n = 2 * n := by
  sorry

theorem second (n : Nat) (h : n = 0) :
    double n = 0 := sorry
"""


def test_a_files_theorems_come_in_order_with_what_stands_before_them() -> None:
    first, second = of_file(FILE, "a.lean")
    assert (first["name"], second["name"]) == ("first", "second")
    assert first["header"] == "import Std\n\nopen Nat"
    assert "def double" in second["definitions"] and "theorem" not in second["definitions"]
    assert second["statement"] == "theorem second (n : Nat) (h : n = 0) :\n    double n = 0"
    made = Challenge.of({key: second[key] for key in ("header", "definitions", "statement")})
    assert made.names == ("second",) and made.imports == ("Std",)


def test_rows_give_their_statement_whatever_they_end_in() -> None:
    for end in (" := by sorry", " := by\n  sorry", " := sorry", " := by", " :=", ""):
        row = {"name": "a", "split": "valid", "header": "open Nat\n", "formal_statement": f"theorem a : 1 = 1{end}"}
        found = of_row(row, "here")
        assert found["statement"] == "theorem a : 1 = 1" and found["split"] == "valid" and found["header"] == "open Nat"


def test_a_suite_imports_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.lean").write_text(FILE, encoding="utf-8")
    row = {"id": "b c", "formal_statement": "theorem b : 2 = 2 := by", "informal_stmt": "Two.", "proof": "rfl"}
    (tmp_path / "b.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    tasks = list(generate({"path": str(tmp_path)}, 0, 10))
    assert [task["id"] for task in tasks] == ["00000-first", "00001-second", "00002-b-c"]
    assert tasks[2]["prompt"]["user"].startswith("Two.")
    assert tasks[2]["solution"] == {"turns": ["```lean4\nrfl\n```"]}
    with pytest.raises(UserError, match="no theorem ends"):
        list(of_file("theorem a : 1 = 1 := rfl", "x.lean"))
    with pytest.raises(UnknownName, match="path"):
        list(generate({"pth": "x"}, 0, 1))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "statement"),
        ({"statement": "lemma"}, "theorem NAME"),
        ({"statement": "theorem a : 1 = 1", "mode": "text"}, "mode"),
        ({"statement": "theorem a : 1 = 1", "heartbeats": 0}, "heartbeats"),
        ({"statement": "theorem a : 1 = 1", "permitted_axioms": "propext"}, "permitted_axioms"),
        ({"statment": "theorem a : 1 = 1"}, "did you mean 'statement'"),
    ],
)
def test_a_challenge_that_is_none_is_refused_with_its_reason(params: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Challenge.of(params)
