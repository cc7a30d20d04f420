"""A challenge's names, the file that a body becomes, and challenges that are compiled together."""

from __future__ import annotations

import asyncio

import pytest

from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.read import name_of

BODY = Challenge(statement="theorem target : p", mode="body")


@pytest.mark.parametrize(
    ("definitions", "statement", "name"),
    [
        ("", "theorem target.{u} (α : Type u) : α = α", "target"),
        ("", "@[simp] theorem Foo.target: 1 = 1", "Foo.target"),
        ("", "/-- of a theorem -/ theorem «my target».x : 1 = 1", "«my target».x"),
        ("namespace A.B\nsection\ndef x := 1\nend\nnamespace C", "theorem target : x = 1", "A.B.C.target"),
        ("namespace A\nend A -- namespace B\nsection S", "theorem target : 1 = 1", "target"),
        ("namespace A.B\nend B\nmutual\nend", "theorem target : 1 = 1", "A.target"),
        ("namespace A", "theorem _root_.target : 1 = 1", "target"),
    ],
)
def test_a_theorem_has_its_full_name(definitions: str, statement: str, name: str) -> None:
    assert Challenge(definitions=definitions, statement=statement).names == (name,)


def test_what_stands_in_guillemets_is_one_part_of_a_name() -> None:
    assert name_of("A.«x.y z».b'") == ("A", "x.y z", "b'") and name_of("«target»") == ("target",)


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("intro h\nexact h", ["  intro h", "  exact h"]),
        ("    intro h\n    exact h", ["  intro h", "  exact h"]),
        ("by intro h\n   exact h", ["  intro h", "  exact h"]),
        ("intro h\n  exact h", ["  intro h", "  exact h"]),
        ("unfold f\n    rfl", ["  unfold f", "  rfl"]),
        ("refine ⟨rfl, ?_⟩\n  decide", ["  refine ⟨rfl, ?_⟩", "  decide"]),
        ("constructor\n  · rfl\n  · rfl", ["  constructor", "  · rfl", "  · rfl"]),
        ("have h : a := by\n    simp\n  exact h", ["  have h : a := by", "    simp", "  exact h"]),
        ("simp\r\n  omega\r\n", ["  simp", "  omega"]),
        # What goes on below its first line stays deeper than it.
        ("exact foo\n  (bar)\n  rfl", ["  exact foo", "    (bar)", "    rfl"]),
        ("simp <;>\n  omega", ["  simp <;>", "    omega"]),
        ("have h : a := by\n  simp\nexact h", ["  have h : a := by", "    simp", "  exact h"]),
        ("cases h with\n  | inl h => exact h\n  | inr h =>\n    simp", None),
        ("first\n  | rfl\n  | omega", None),
        ("calc a = b := x\n  _ = c := y", None),
    ],
)
def test_a_body_keeps_its_shape_and_gets_back_the_indentation_of_its_first_line(
    body: str, lines: list[str] | None
) -> None:
    lines = lines or ["  " + line for line in body.split("\n")]
    assert BODY.file(body) == "theorem target : p := by\n" + "\n".join(lines) + "\n"


BESIDE = [
    (
        "instance (priority := high) saturating : Add Nat := ⟨fun a b => Nat.min (Nat.add a b) 10⟩",
        "theorem target : (7 : Nat) + 8 = 10",
        "by decide",
    ),
    ("", "theorem target (x : Nat) : x + 3 = 3 + x", "Nat.add_comm x 3"),
]
APART = [
    ('infixl:65 " ⊞ " => Nat.mul', "theorem target (a b : Nat) : a ⊞ b = b ⊞ a", "Nat.mul_comm a b"),
    ('infixl:65 " ⊞ " => Nat.add', "theorem target (a b : Nat) : a ⊞ b = b ⊞ a", "Nat.add_comm a b"),
    ("def Nat.twice (n : Nat) := n * 2", "theorem target (n : Nat) : n.twice = n * 2", "rfl"),
    ("def half (n : Nat) := n / 2", "theorem target : half 7 = 3", "rfl"),
    ("namespace Deep\ndef one := 1", "theorem «a target» : one = 1", "rfl"),
    ("namespace Nat\ndef pred' := pred\nend Nat", "theorem target : Nat.pred' 3 = 2", "rfl"),
]


@pytest.mark.lean
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rows", [BESIDE, pytest.param(APART, marks=pytest.mark.slow)], ids=["beside", "apart"])
async def test_no_challenge_changes_what_one_that_is_compiled_beside_it_means(
    judge: Judge, rows: list[tuple[str, str, str]]
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                judge.judge(
                    Challenge(definitions=definitions, statement=statement), f"{definitions}\n{statement} := {proof}"
                )
            )
            for definitions, statement, proof in rows
        ]
    assert [(one.result().reason, one.result().detail) for one in tasks] == [("ok", "")] * len(rows)
