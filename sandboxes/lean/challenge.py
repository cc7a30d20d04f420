"""What is to be proved, as a task says it, and how a whole file is made of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.sandboxes.lean.lexer import Unreadable, tokens

__all__ = ["STANDARD_AXIOMS", "Challenge"]

STANDARD_AXIOMS = ("propext", "Classical.choice", "Quot.sound")
_PART = r"(?:«[^»\n]+»|[^\s({\[⦃:.«]+)"
_THEOREM = re.compile(rf"(?:^|\s)(?:theorem|lemma)\s+({_PART}(?:\.{_PART})*)")
_BODY_START = re.compile(r"\A\s*(?::=\s*)?by\b")
_TACTIC = re.compile(
    r"(?:·|\. |(?:all_goals|any_goals|apply|assumption|by_cases|cases|case|change|constructor|contradiction|conv|dsimp"
    r"|exact|exists|exfalso|ext|funext|generalize|grind|have|induction|injection|intro|intros|let|next|nomatch|norm_num"
    r"|obtain|omega|rcases|refine|repeat|rename_i|revert|rintro|rw|rwa|show|simp|simpa|simp_all|skip|specialize|split"
    r"|subst|suffices|try|unfold|linarith|nlinarith|ring|ring_nf|positivity|field_simp|push_cast|norm_cast|aesop"
    r"|bv_decide|ac_rfl|fun_induction|fun_cases)(?![\w'.]))"
)
_NAME_TOO = re.compile(r"(?:rfl|decide|trivial|left|right|symm|congr)(?![\w'.])")
"""Tactics that are terms as well."""
_TAKES_TERM = re.compile(r"\s*(?:·\s*)?(?:exact|refine|apply|have|show|let|suffices|calc|exists|use)\b(?!\s*⟨)")
_GOES_ON = re.compile(
    r"(?:\b(?:by|do|then|else|with|from|exact|refine|apply|case|at|in|of|fun)|=>|↦|:=|<;>|[(\[{⟨,|·←])\s*\Z"
)
"""How a line ends that the next, deeper one belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One statement with what it needs. All of it is trusted."""

    statement: str
    """From `theorem` up to, and without, `:=`."""
    header: str = ""
    """Imports and `open`s, before everything."""
    definitions: str = ""
    theorems: tuple[str, ...] = ()
    """Names that must be proved; the statement's own where empty."""
    permitted_axioms: tuple[str, ...] = STANDARD_AXIOMS
    mode: str = "file"
    """file: a submission is a whole file; body: what comes after `:= by`, and the rest is put before it."""
    heartbeats: int = 200_000

    def __post_init__(self) -> None:
        if self.mode not in ("file", "body"):
            raise UserError(f"mode of a Lean challenge is {self.mode!r}; expected file or body")
        if not self.names:
            raise UserError("statement of a Lean challenge has no `theorem NAME`")
        if not 1 <= self.heartbeats <= 4_000_000:
            raise UserError(f"heartbeats of a Lean challenge is {self.heartbeats}; expected 1 to 4000000")

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Challenge:
        """A challenge as YAML gives it.

        Raises:
            UserError, UnknownName: a key is missing, not known, or of another type.
        """
        known = {field.name for field in fields(cls)}
        for key in params:
            if key not in known:
                raise UnknownName("key of a Lean challenge", key, known)
        if "statement" not in params:
            raise UserError("a Lean challenge has no `statement`")
        given: dict[str, Any] = {}
        for key, value in params.items():
            if key in ("theorems", "permitted_axioms"):
                if isinstance(value, str) or not all(isinstance(one, str) for one in value):
                    raise UserError(f"{key} of a Lean challenge must be a list of names")
                given[key] = tuple(value)
            elif not isinstance(value, int if key == "heartbeats" else str) or isinstance(value, bool):
                raise UserError(f"{key} of a Lean challenge is {value!r}")
            else:
                given[key] = value
        return cls(**given)

    @property
    def names(self) -> tuple[str, ...]:
        """Theorems that must be there, in full: the namespaces that are open where the statement stands are in it."""
        if self.theorems:
            return self.theorems
        found = _THEOREM.findall(self.statement)[-1:]
        if not found or found[0].startswith("_root_."):
            return tuple(name.removeprefix("_root_.") for name in found)
        return (".".join((*filter(None, self.open_scopes), found[0])),)

    @property
    def open_scopes(self) -> tuple[str, ...]:
        """Namespaces, and an empty text for each section, that it opens and leaves open."""
        text = f"{self.header}\n{self.definitions}\n{self.statement}"
        return _open_scopes(text) if "namespace" in text or "section" in text else ()

    @property
    def imports(self) -> tuple[str, ...]:
        """Modules that the header imports."""
        return tuple(re.findall(r"^\s*import\s+(\S+)", self.header, re.MULTILINE))

    @property
    def opening(self) -> str:
        """The header without its imports."""
        return re.sub(r"^\s*import\s+\S+[ \t]*$", "", self.header, flags=re.MULTILINE).strip()

    def asked(self) -> str:
        """The statement with its proof left out."""
        return _joined(self.opening, self.definitions, f"{self.statement.rstrip()} := sorry")

    def file(self, submission: str) -> str:
        """The whole file that is compiled for a submission."""
        if self.mode == "file":
            return submission
        # The first tactic may stand behind the `by`: it keeps its column, as the lines below are to be even with it.
        body = _BODY_START.sub(lambda by: " " * (by.end() - by[0].rfind("\n") - 1), submission, count=1)
        lines = _aligned(body.replace("\r\n", "\n").strip("\n").split("\n"))
        margin = min((_indent(line) for line in lines if line.strip()), default=0)
        shifted = "\n".join("  " + line[margin:] if line.strip() else "" for line in lines)
        return _joined(self.header, self.definitions, f"{self.statement.rstrip()} := by\n{shifted}\n")

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _aligned(lines: list[str]) -> list[str]:
    """The lines of a body, the first even with the others where it lost its indentation: a text that was stripped.

    It did where a tactic of its own stands deeper below it, in a line that does not go on the one before.
    """
    rest = [line for line in lines[1:] if line.strip()]
    margin, first = min(map(_indent, rest), default=0), _indent(lines[0])
    if not rest or margin == first or not lines[0].strip():
        return lines
    before, lost = lines[0], False
    for line in rest:
        if _indent(line) == margin and not _GOES_ON.search(before):
            maybe = _NAME_TOO.match(line.strip()) and not any(map(_TAKES_TERM.match, (lines[0], before)))
            lost = lost or bool(maybe or _TACTIC.match(line.strip()))
        before = line
    if lost:
        first = margin
    return [" " * min(first, max(0, margin - (not lost))) + lines[0].lstrip(), *lines[1:]]


def _open_scopes(text: str) -> tuple[str, ...]:
    try:
        found = [*tokens(text)]
    except Unreadable:
        return ()
    scopes: list[str] = []
    for index, token in enumerate(found):
        if token.kind != "word" or token.text not in ("namespace", "section", "mutual", "end"):
            continue
        after = found[index + 1] if index + 1 < len(found) else None
        named = after is not None and after.kind == "word" and after.line == token.line
        parts = re.findall(_PART, after.text) if named and after is not None else [""]
        if token.text == "end":
            del scopes[max(0, len(scopes) - len(parts)) :]
        else:
            scopes += parts if token.text == "namespace" else [""] * (1 if token.text == "mutual" else len(parts))
    return tuple(scopes)


def _joined(*parts: str) -> str:
    return "\n".join(part.rstrip() for part in parts if part.strip()) + "\n"
