"""The first step: comments and texts are told from commands, and what is not listed is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.sandboxes.lean.gate import Limits, refusal
from agenthub.sandboxes.lean.lexer import Unreadable, tokens

PROOF = "theorem target : 1 = 1 := rfl"


@pytest.mark.parametrize(
    "source",
    [
        PROOF,
        f"/- axiom /- nested -/ #eval -/ {PROOF}",
        f"-- macro\n{PROOF}",
        f'def s := "axiom \\" #eval"\n{PROOF}',
        f'def s := r#"axiom "quoted" unsafe"#\n{PROOF}',
        f"def c := 'a'\ndef d := '\\''\ndef x' := 'b'\n{PROOF}",
        f"def «axiom» := 1\n{PROOF}",
        f"@[simp, local grind] theorem h : 1 = 1 := rfl\n{PROOF}",
        f"set_option maxHeartbeats 400000 in\nset_option warn.sorry false in\n{PROOF}",
        f"open Nat in\nattribute [-simp] Nat.add_zero\n{PROOF}",
        f"import Std.Data.HashMap\n{PROOF}",
        "theorem target (l : List Nat) : l.prefix.axiom = 1 := by\n  · simp [h.notation]\n",
        f"example (x : BitVec w) : x + 0#w = x ∧ 0x1F#8 = 31#8 ∧ 5#(w + 1) = 5 := h\n{PROOF}",
        f"example : #v[1, 2].size = #[1, 2].size := rfl\n{PROOF}",
        f"theorem h (constant : Nat) (variables : constant = 1) : constant = 1 := variables\n{PROOF}",
        f"grind_pattern h => f x\nseal f\nalias g := f\n{PROOF}",
        f"set_option linter.all false in\nset_option trace.Meta.synthInstance true\nset_option pp.all true\n{PROOF}",
        f'def s := s!"n = {{n + 1}} and \\{{ axiom }}, {{f {{ a := 1 }}}}"\n{PROOF}',
        f"example : xs.get! \"{{\" = some! '{{' := h\n{PROOF}",
        f"example : x.1.2.y = 1.5e-3 + 1_000 ∧ x₁'.2 = 0b101 := h\n{PROOF}",
    ],
)
def test_what_proofs_are_written_with_passes(source: str) -> None:
    assert refusal(source, Limits()) is None


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("axiom a : False", "axiom"),
        ("  private axiom a : False", "axiom"),
        ("/- -/ axiom a : False", "axiom"),
        ('def s := "\\\\" axiom a : False --"', "axiom"),
        ('def s := r"\\" axiom a : False --"', "axiom"),
        ("def c := '\"' axiom a : False --\"", "axiom"),
        ("unsafe def f := 1", "unsafe"),
        ("#eval 1", "#eval"),
        ("#exit", "#exit"),
        ("#print axioms target", "#print"),
        ('macro "x" : term => `(1)', "macro"),
        ('local notation "five" => 4', "notation"),
        ("elab_rules : term | `(x) => pure default", "elab_rules"),
        ("run_cmd pure ()", "run_cmd"),
        ("example : True := by run_tac pure ()", "run_tac"),
        ("initialize x : Nat ← pure 1", "initialize"),
        ("simproc p (1) := fun _ => default", "simproc"),
        ('def s := include_str "/etc/passwd"', "include_str"),
        ("@[implemented_by f] def g := 1", "implemented_by"),
        ('@[simp, extern "f"] def g := 1', "extern"),
        ("@[csimp] theorem h : f = g := rfl", "csimp"),
        ("attribute [local macro x] f", "macro"),
        ("@ [ implemented_by f ] def g := 1", "implemented_by"),
        ("set_option debug.skipKernelTC true in theorem t : 1 = 1 := rfl", "debug.skipKernelTC"),
        ("set_option maxHeartbeats 0 in theorem t : 1 = 1 := rfl", "maxHeartbeats"),
        ("set_option maxHeartbeats 99999999 in theorem t : 1 = 1 := rfl", "maxHeartbeats"),
        ("prelude\n" + PROOF, "prelude"),
        ("module\n" + PROOF, "module"),
        ("import Lean\n" + PROOF, "Lean"),
        ("import all Init.Core\n" + PROOF, "all"),
        ('def s := s!"{axiomatic "x"}"', "interpolated"),
        ('def s := s!"{a} {by run_tac x}"', "run_tac"),
        ('def s := s!"\\\\{include_str x}"', "include_str"),
        ('def s := s!"{a', "text"),
        ('def s := s!"{a" ++ "b"', "interpolated"),
        ('def n := dbg_trace "{(by run_tac x : Nat)}"; 1', "run_tac"),
        ("def n := 1axiom a : False", "axiom"),
        ("def n := 1.5e3axiom a : False", "axiom"),
        ("def n := 5#8axiom a : False", "axiom"),
        ("def n := 5#eval 1", "#eval"),
        ("def n := 5#axiom", "#axiom"),
        ("#v [1]", "#v"),
        ("constant a : False", "constant"),
        ("set_option trace.profiler.output true in set_option trace.x 3", "trace.x"),
        ("/- /- -/ axiom a : False", "comment"),
        ('def s := "', "text"),
        ("def «a := 1", "quoted name"),
        ("def a\u202e := 1", "character"),
        ("def a\x00 := 1", "character"),
    ],
)
def test_what_is_not_listed_is_refused_by_name(source: str, named: str) -> None:
    why = refusal(source, Limits())
    assert why is not None and named in why


@given(st.text(alphabet=st.sampled_from("/-\"'r#«»\\ \n.axiomset_@[]{}⟨λ0!?"), max_size=60))
def test_every_text_is_read_or_refused_and_loses_no_character(source: str) -> None:
    try:
        found = tokens(source)
    except Unreadable:
        assert refusal(source, Limits()) is not None
        return
    at = 0
    for token in found:
        assert token.at >= at and source.startswith(token.text, token.at) and token.text
        between = source[at : token.at]
        assert not between.strip() or between.lstrip().startswith(("--", "/-")), between
        at = token.at + len(token.text)
