"""What is to be proved, as a task says it, and how a whole file is made of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["STANDARD_AXIOMS", "Challenge"]

STANDARD_AXIOMS = ("propext", "Classical.choice", "Quot.sound")
_THEOREM = re.compile(r"(?:^|\s)(?:theorem|lemma)\s+([^\s({\[⦃:.]+(?:\.[^\s({\[⦃:.]+)*)")
_BODY_START = re.compile(r"\A\s*(?::=\s*)?by\b")


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
        """Theorems that must be there."""
        return self.theorems or tuple(_THEOREM.findall(self.statement)[-1:])

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
        body = _BODY_START.sub("", submission, count=1)
        lines = body.strip("\n").splitlines() or [""]
        margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        if lines[0][:1] not in (" ", "\t"):
            margin = 0
        shifted = "\n".join("  " + line[margin:] if line.strip() else "" for line in lines)
        return _joined(self.header, self.definitions, f"{self.statement.rstrip()} := by\n{shifted}\n")

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _joined(*parts: str) -> str:
    return "\n".join(part.rstrip() for part in parts if part.strip()) + "\n"
