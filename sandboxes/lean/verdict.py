"""What a judged submission is told: one reason, and what the judgement rests on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Assurance", "Reason", "Verdict"]


class Reason(StrEnum):
    """Why a submission was accepted or not; exactly one of them."""

    OK = "ok"
    SORRY = "sorry"
    ILLEGAL_AXIOM = "illegal_axiom"
    STATEMENT_MISMATCH = "statement_mismatch"
    MISSING_TARGET = "missing_target"
    WRONG_KIND = "wrong_kind"
    KERNEL_REJECT = "kernel_reject"
    FORBIDDEN_COMMAND = "forbidden_command"
    COMPILE_ERROR = "compile_error"
    TIMEOUT = "timeout"
    OOM = "oom"
    CRASH = "crash"
    OUTPUT_LIMIT = "output_limit"
    INFRA_ERROR = "infra_error"
    """Our side failed; the only one that is tried again."""


class Assurance(StrEnum):
    """How far the judgement went."""

    NONE = "none"
    """Refused before anything was read."""
    READ = "read"
    """The compiled declarations were read; nothing says that a kernel took them."""
    REPLAYED = "replayed"
    """A kernel that never saw the submission took every declaration of it. Rewards take nothing less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judged submission."""

    reason: Reason
    assurance: Assurance = Assurance.NONE
    detail: str = ""
    """One line for a person."""
    axioms: tuple[str, ...] = ()
    challenge_sha256: str = ""
    submission_sha256: str = ""
    toolchain: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    """What the compiler said, for feedback; believed by nobody."""
    seconds: dict[str, float] = field(default_factory=dict)
    """gate, compile, read, replay."""

    @property
    def accepted(self) -> bool:
        """True where the statement was proved, and a kernel said so."""
        return self.reason is Reason.OK and self.assurance is Assurance.REPLAYED

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        row = asdict(self)
        row |= {"reason": str(self.reason), "assurance": str(self.assurance), "accepted": self.accepted}
        return row | {"axioms": list(self.axioms), "messages": list(self.messages)}
