"""Refuses, before anything is run, a submission that asks for more than definitions and proofs.

Commands, options and attributes are allow-lists. Every word that Lean 4 reads as a command, and every `#word`, is
refused unless listed; the judge's other steps hold without this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agenthub.sandboxes.lean.lexer import Token, Unreadable, interpolated, tokens

__all__ = ["ALLOWED_COMMANDS", "Limits", "imports_of", "refusal", "words_of"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED_COMMANDS = _words("""
theorem lemma def abbrev instance example inductive structure class opaque mutual end namespace section variable
universe open export set_option attribute deriving private protected public noncomputable nonrec partial local scoped
include omit import in termination_by decreasing_by where grind_pattern seal unseal add_decl_doc alias
""")
_REFUSED = _words("""
axiom unsafe meta module prelude macro macro_rules syntax elab elab_rules notation infix infixl infixr prefix postfix
declare_syntax_cat initialize builtin_initialize run_cmd run_elab run_meta run_tac by_elab include_str simproc dsimproc
builtin_simproc builtin_dsimproc simproc_decl dsimproc_decl builtin_simproc_decl simproc_pattern%
builtin_simproc_pattern% binder_predicate register_option register_builtin_option register_parser_alias
register_simp_attr register_builtin_attribute register_label_attr declare_config_elab
declare_command_config_elab declare_simp_like_tactic
declare_aesop_rule_sets add_aesop_rules erase_aesop_rules init_quot gen_injective_theorems% unif_hint
reset_grind_attrs% compile_inductive compile_def% tactic_extension register_tactic_tag docs_to_verso
show_panel_widgets show_term_elab library_note recommended_spelling assert_not_exists assert_not_imported
deprecated_module with_weak_namespace coinductive declare_uint_theorems declare_int_theorems grind_annotated import_path
mk_iff_of_inductive_prop initialize_simps_projections suppress_compilation unsuppress_compilation notation3 eval%
decl_name% unsafeCast ofReduceBool lcProof lcUnreachable builtin_term_parser builtin_tactic_parser evalDecl
export_private_decl private_decl%
""")
_FORMER = _words("inductive_predicate variables constant constants")
"""Commands of Lean 3: names like any other now, and refused where they begin a line."""
ALLOWED_HASH = _words("#check")
_HASH_STEMS = tuple(
    _words("""
check eval exit print reduce synth guard where version with import discr info lang dump time widget html grind lint lean
simp norm conv find help search loogle moogle leansearch test explode unfold string trans instances aesop allow count
minimize redundant show sample
""")
)
"""How commands with a `#` begin, Mathlib's too."""
_INTERPOLATES = _words("dbg_trace throwError logInfo logWarning logError")
"""Words without a `!` behind which a text is interpolated."""
ALLOWED_ATTRIBUTES = _words("""
simp simp? grind grind? grind! ext refl rfl symm trans congr irreducible reducible semireducible inline noinline
always_inline macro_inline
specialize instance default_instance elab_as_elim induction_eliminator cases_eliminator match_pattern norm_cast
push_cast deprecated expose no_expose defeq simp_arith coe inherit_doc class nospecialize
elab_without_expected_type aesop recursor unbox never_extract pp_nodot pp_using_anonymous_constructor wf_preprocess
implicit_reducible instance_reducible partial_fixpoint_monotone seval bv_normalize spec univ_out_params simps
to_additive gcongr fun_prop continuity measurability mono nolint
""")
_INTEGERS = {
    "maxRecDepth": 100_000,
    "synthInstance.maxSize": 100_000,
    "exponentiation.threshold": 100_000,
    "maxUniverseOffset": 1000,
    "maxSynthPendingDepth": 100,
    "pp.maxSteps": 1_000_000,
    "format.width": 10_000,
}
_SHOWS = ("linter.", "pp.", "trace.")
"""How options begin that, being true or false, change no more than what is printed."""
_BOOLEANS = _words("""
autoImplicit relaxedAutoImplicit warn.sorry Elab.async structureDiamondWarning tactic.hygienic grind.warning
warningAsError smartUnfolding simprocs diagnostics autoLift tactic.customEliminators tactic.simp.trace
backward.eta.structure backward.isDefEq.lazyWhnfCore backward.isDefEq.respectTransparency
backward.synthInstance.canonInstances backward.dsimp.instances
""")
_HEARTBEATS = _words("maxHeartbeats synthInstance.maxHeartbeats")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a submission may ask for."""

    heartbeats: int = 1_000_000
    """Most that it may set; 0, which is no limit, is refused."""
    imports: frozenset[str] = frozenset({"Init", "Std"})
    """Modules that it may import, and what is below them."""
    chars: int = 200_000
    also: frozenset[str] = frozenset()
    """Commands, attributes and options that the challenge's own text has; a submission may use them as well."""
    hash_commands: bool = False
    """`#print` is let through as well: it shows, and does nothing."""
    meta: bool = False
    """Meta-programs, syntax extensions, attributes and options of any kind are let through: the judge's later steps
    hold without the gate, but a policy that plays with them learns little about proofs."""


def refusal(source: str, limits: Limits) -> str | None:
    """Why a submission is refused; None where it is not."""
    if len(source) > limits.chars:
        return f"it has more than {limits.chars} characters"
    try:
        found = tokens(source)
    except Unreadable as error:
        return str(error)
    named = next((f"imports {name}" for name in imports(found) if not _may_import(name, limits.imports)), None)
    if named is not None:
        return named
    for index, token in enumerate(found):
        why = _refused(found, index, limits)
        if why is not None:
            return f"line {token.line}: {why}"
    return None


def imports(found: Sequence[Token]) -> list[str]:
    """Modules that a file's words import."""
    return [after.text for word, after in pairwise(found) if word.text == "import"]


def words_of(source: str) -> frozenset[str]:
    """The words of a trusted text; none where it cannot be read."""
    try:
        return frozenset(token.text for token in tokens(source) if token.kind == "word")
    except Unreadable:
        return frozenset()


def imports_of(source: str) -> list[str]:
    """Modules that a readable file imports. Raises Unreadable."""
    return imports(tokens(source))


def _may_import(name: str, roots: Iterable[str]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def _refused(found: Sequence[Token], index: int, limits: Limits) -> str | None:
    token = found[index]
    after = found[index + 1].text if index + 1 < len(found) else ""
    if token.text == "@" and after == "[" and not limits.meta:
        return _attributes(found, index + 1, limits)
    if token.text[:1] == '"' and "{" in token.text and index and _interpolates(found[index - 1].text):
        return _between_braces(token.text, limits)
    if token.kind != "word":
        return None
    if token.text in ("prelude", "module"):
        return f"the command {token.text}"
    if token.text == "import" and after == "all":
        return "imports all of a module"
    if limits.meta:
        return None
    shows = token.text in ALLOWED_HASH or (limits.hash_commands and token.text == "#print")
    if token.text.startswith("#") and not shows and not _literal(found, index, after):
        return f"the command {token.text}"
    if token.text in limits.also and token.text != "set_option" and token.text != "attribute":
        return None
    former = token.text in _FORMER and not (index and found[index - 1].line == token.line)
    if former or token.text in _REFUSED or (token.text + "%" in _REFUSED and after == "%"):
        return f"the command {token.text}"
    if token.text == "set_option":
        return _option(found, index, limits)
    return _attributes(found, index + 1, limits) if token.text == "attribute" else None


def _interpolates(before: str) -> bool:
    # `s!` is a word of its own; `xs.get!` is a function that takes a text like any other.
    return (before.endswith("!") and "." not in before) or before in _INTERPOLATES


def _between_braces(text: str, limits: Limits) -> str | None:
    try:
        inner = interpolated(text)
    except Unreadable:
        return "an interpolated text"
    return next((why for at in range(len(inner)) if (why := _refused(inner, at, limits)) is not None), None)


def _literal(found: Sequence[Token], index: int, after: str) -> bool:
    """True for the `#w` of a bit vector `0#w`, and for the `#v` of a vector `#v[1, 2]`."""
    token = found[index]
    name = token.text[1:]
    if name == "v" and after == "[" and found[index + 1].at == token.at + 2:
        return True
    before = found[index - 1] if index else None
    if before is None or before.kind != "number" or before.at + len(before.text) != token.at:
        return False
    return name not in _REFUSED and not name.startswith(_HASH_STEMS)


def _option(found: Sequence[Token], index: int, limits: Limits) -> str | None:
    if index + 2 >= len(found):
        return "an option without a value"
    name, value = found[index + 1].text, found[index + 2]
    if name in limits.also and name not in _HEARTBEATS and not name.startswith("debug."):
        return None
    if name in _BOOLEANS or name.startswith(_SHOWS):
        return None if value.text in ("true", "false") else f"the option {name} {value.text}"
    if name in _INTEGERS or name in _HEARTBEATS:
        most = _INTEGERS.get(name, limits.heartbeats)
        digits = value.text.replace("_", "")
        if value.kind == "number" and digits.isdecimal() and len(digits) < 12 and 1 <= int(digits) <= most:
            return None
        return f"the option {name} {value.text}; expected 1 to {most}"
    return f"the option {name}"


def _attributes(found: Sequence[Token], at: int, limits: Limits) -> str | None:
    """The list that opens at `at`: every attribute's own name is an allowed one."""
    if at >= len(found) or found[at].text != "[":
        return "attributes that cannot be read"
    depth, first = 0, True
    for token in found[at:]:
        if token.text in ("[", "(", "{"):
            depth += 1
            if depth > 1 and first:
                return "attributes that cannot be read"
        elif token.text in ("]", ")", "}"):
            depth -= 1
            if depth == 0:
                return None
        elif token.text == "," and depth == 1:
            first = True
        elif first and depth == 1:
            if token.text in ("-", "local", "scoped"):
                continue
            if token.text not in ALLOWED_ATTRIBUTES | limits.also:
                return f"the attribute {token.text}"
            first = False
    return "attributes that cannot be read"
