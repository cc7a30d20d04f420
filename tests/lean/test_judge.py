"""The second and third step: what was compiled is read as data that may be forged, and the kernel has the last word."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from agenthub.sandboxes.lean import index
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.olean import BadOlean, Table
from agenthub.sandboxes.lean.read import Asked, decode, read
from agenthub.sandboxes.lean.toolchain import TESTED
from agenthub.sandboxes.lean.verdict import Assurance, Reason, Verdict

pytestmark = [pytest.mark.lean, pytest.mark.timeout(3600)]

TREE = """inductive Tree (α : Type u) where
  | leaf
  | node (left : Tree α) (value : α) (right : Tree α)
def Tree.size : Tree α → Nat
  | .leaf => 0
  | .node l _ r => l.size + 1 + r.size
def Tree.mirror : Tree α → Tree α
  | .leaf => .leaf
  | .node l v r => .node r.mirror v l.mirror
"""
ABOUT_TREES = Challenge(definitions=TREE, statement="theorem target (t : Tree α) : t.mirror.size = t.size")
TREE_PROOF = """theorem target (t : Tree α) : t.mirror.size = t.size := by
  induction t with
  | leaf => rfl
  | node l v r a b => simp [Tree.mirror, Tree.size, a, b]; omega
"""
HELPERS = """inductive Even : Nat → Prop where
  | zero : Even 0
  | step : Even n → Even (n + 2)
mutual
inductive Left where
  | stop
  | go (r : Right)
inductive Right where
  | stop
  | go (l : Left)
end
inductive Rose where
  | node (children : List Rose)
opaque secret : { n : Nat // n < 5 } := ⟨3, by decide⟩
structure Pair where
  first : Nat
  second : Nat
def big : Nat := 123456789012345678901234567890
theorem used (p : Pair) (l : Left) (r : Rose) : ⟨p.first, p.second⟩ = p ∧ l = l ∧ r = r ∧ Even 4 ∧ secret.val < 5 ∧
    big % 10 = 0 ∧ "añ".length = 2 :=
  ⟨rfl, rfl, rfl, .step (.step .zero), secret.property, by decide, by decide⟩
theorem target : Even 4 ↔ (2 : Nat) + 2 = 4 := ⟨fun _ => rfl, fun _ => (used ⟨1, 2⟩ .stop (.node [])).2.2.2.1⟩
"""
EVEN = HELPERS.split("mutual")[0]
SUM = Challenge(statement="theorem target : (2 : Nat) + 2 = 5")


async def both(judge: Judge, *rows: tuple[Challenge, str], meta: bool = False) -> list[Verdict]:
    """Verdicts of several submissions at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(judge.judge(challenge, text, meta=meta)) for challenge, text in rows]
    return [task.result() for task in tasks]


async def test_definitions_of_every_kind_are_compared_and_replayed(judge: Judge) -> None:
    even = Challenge(definitions=EVEN, statement="theorem target : Even 4 ↔ (2 : Nat) + 2 = 4")
    helper = TREE.replace("def Tree.size", "theorem early : ∀ n : Nat, n = n := fun _ => rfl\ndef Tree.size")
    universe = Challenge(statement="theorem target.{u} (α : Sort u) (a : α) : a = a")
    changed = [
        TREE.replace("l.size + 1 + r.size", "l.size + r.size") + TREE_PROOF,
        TREE.replace("  | .node l v r => .node r.mirror v l.mirror", "  | t => t")
        + "theorem target (t : Tree α) : t.mirror.size = t.size := by cases t <;> rfl\n",
        TREE.replace("| leaf\n", "| leaf\n  | other\n")
        .replace("| .leaf => 0", "| .leaf | .other => 0")
        .replace("| .leaf => .leaf", "| .leaf => .leaf\n  | .other => .other")
        + TREE_PROOF.replace("| leaf => rfl", "| leaf | other => rfl"),
    ]
    found = await both(
        judge,
        (ABOUT_TREES, TREE + TREE_PROOF),
        (ABOUT_TREES, helper + TREE_PROOF),
        (even, HELPERS),
        (universe, "theorem target.{v} (β : Sort v) (b : β) : b = b := rfl"),
        *((ABOUT_TREES, text) for text in changed),
    )
    honest, hostile = found[:4], found[4:]
    assert [(one.reason, one.assurance, one.detail) for one in honest] == [(Reason.OK, Assurance.REPLAYED, "")] * 4
    assert set(honest[0].axioms) <= {"propext", "Quot.sound", "Classical.choice"}
    assert [one.reason for one in hostile] == [Reason.STATEMENT_MISMATCH] * 3, hostile


async def test_what_no_kernel_has_seen_is_not_accepted(judge: Judge) -> None:
    unchecked = "set_option debug.skipKernelTC true in\ntheorem {} : (2 : Nat) + 2 = 5 := by decide +kernel\n"
    behind = unchecked.format("h") + "theorem target : (2 : Nat) + 2 = 5 := h"
    honest = Challenge(statement="theorem target : (2 : Nat) + 2 = 4")
    found = await both(
        judge,
        (SUM, unchecked.format("target")),
        (SUM, behind),
        (honest, "theorem target : (2 : Nat) + 2 = 4 := by decide +kernel"),
        (SUM, "instance : OfNat Nat 5 := ⟨4⟩\ntheorem target : (2 : Nat) + 2 = 5 := rfl"),
        (SUM, "def target : (2 : Nat) + 2 = 5 := sorry"),
        meta=True,
    )
    assert [one.reason for one in found[:2]] == [Reason.KERNEL_REJECT] * 2, found
    assert found[0].assurance is Assurance.READ and not found[0].accepted
    assert found[2].accepted, found[2]
    assert found[3].reason is Reason.STATEMENT_MISMATCH
    assert found[4].reason in (Reason.WRONG_KIND, Reason.COMPILE_ERROR)


async def test_forged_files_are_refused_and_never_hang_or_break_the_reader(judge: Judge) -> None:
    # No other test asks this one, so it was compiled alone and not in a namespace beside others.
    challenge = Challenge(statement="theorem target (a b : Nat) : a + b + 0 = b + a")
    asked = await judge.challenges.get(challenge)
    ran = await judge.compile(f"{challenge.statement} := by omega", challenge, 600.0)
    imported = index.load(judge.compiler.toolchain, [], judge.cache)
    pointer = judge.compiler.toolchain.pointer_bytes

    def reading(parts: tuple[bytes, ...]) -> Reason:
        told = read(asked, parts, ["target"], challenge.permitted_axioms, imported, pointer=pointer, versions=TESTED)
        return told.reason

    assert reading(ran.parts) is Reason.OK
    assert reading(asked.parts) is Reason.SORRY
    assert reading(()) is Reason.KERNEL_REJECT
    assert reading(ran.parts[:1]) is not Reason.OK or len(ran.parts) == 1
    assert reading((b"olean" + b"\2" + bytes(200),) * 3) is Reason.KERNEL_REJECT
    foreign = tuple(part.replace(b"Init\0", b"In}]\0") for part in ran.parts)
    assert foreign != ran.parts and reading(foreign) is Reason.KERNEL_REJECT
    with pytest.raises(BadOlean, match="was not tested"):
        decode([part.replace(b"4.28.0", b"4.99.0") for part in ran.parts], Table(), pointer=pointer, versions=TESTED)
    rng = random.Random(7)
    last = ran.parts[-1]
    for _ in range(300):
        data = bytearray(last)
        for _ in range(rng.choice((1, 1, 4, 64))):
            data[rng.randrange(0x58, len(data))] = rng.randrange(256)
        reading((*ran.parts[:-1], bytes(data)))
    for cut in range(0, len(last), max(1, len(last) // 40)):
        assert reading((*ran.parts[:-1], last[:cut])) is not Reason.OK


async def test_an_index_tells_real_axioms_from_theorems(judge: Judge) -> None:
    imported = index.load(judge.compiler.toolchain, ["Init"], judge.cache)
    axioms = {".".join(map(str, name)) for name, flags in imported.items() if flags & index.AXIOM}
    assert {"propext", "Classical.choice", "Quot.sound", "sorryAx", "Lean.ofReduceBool", "Lean.trustCompiler"} <= axioms
    assert len(axioms) < 30 and ("Nat", "add_comm") in imported


async def test_definitions_that_the_toolchain_has_no_code_for_are_judged_like_others(judge: Judge) -> None:
    definitions = """structure Pair where
  x : Nat
  y : Int
  deriving Repr, DecidableEq
instance : Add Pair := ⟨fun a b => ⟨a.x + b.x, a.y + b.y⟩⟩
def stars (n : Nat) : String := String.join (List.replicate n "*")
"""
    statement = "theorem target (p q : Pair) : (p + q).x = q.x + p.x ∧ stars 0 = stars 0"
    challenge = Challenge(definitions=definitions, statement=statement)
    proof = f"{statement} := ⟨Nat.add_comm p.x q.x, rfl⟩"
    (found,) = await both(judge, (challenge, f"import Std.Data.HashMap\n{definitions}{proof}"))
    assert found.accepted, found


async def test_what_the_kernel_took_from_compiled_code_rests_on_the_axiom_that_trusts_the_compiler(
    judge: Judge,
) -> None:
    statement = "theorem target : Lean.reduceBool System.Platform.isWindows = false"
    proof = f"{statement} := rfl"
    strict = Challenge(statement=statement)
    lax = replace(strict, permitted_axioms=("Lean.trustCompiler",))
    refused, read_only = await both(judge, (strict, proof), (lax, proof))
    assert refused.reason is Reason.ILLEGAL_AXIOM and "Lean.trustCompiler" in refused.detail, refused
    assert read_only.axioms == ("Lean.trustCompiler",), read_only


@pytest.mark.slow
async def test_a_permitted_axiom_is_the_challenges_own_and_no_other(judge: Judge) -> None:
    challenge = Challenge(
        definitions="axiom magic : (2 : Nat) + 2 = 5",
        statement="theorem target : (2 : Nat) + 2 = 5",
        permitted_axioms=("magic",),
    )
    proof = "theorem target : (2 : Nat) + 2 = 5 := {}"
    found = await both(
        judge,
        (challenge, "axiom magic : (2 : Nat) + 2 = 5\n" + proof.format("magic")),
        (challenge, "axiom magic : False\n" + proof.format("magic.elim")),
        (replace(challenge, permitted_axioms=()), "axiom magic : (2 : Nat) + 2 = 5\n" + proof.format("magic")),
        meta=True,
    )
    assert [one.reason for one in found] == [Reason.OK, Reason.ILLEGAL_AXIOM, Reason.ILLEGAL_AXIOM], found


async def test_asked_is_compiled_once_and_kept(judge: Judge) -> None:
    first = await judge.challenges.get(SUM)
    again = Judge(judge.compiler, cache=judge.cache)
    second = await again.challenges.get(SUM)
    assert isinstance(first, Asked) and second.parts == first.parts
