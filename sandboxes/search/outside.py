"""Text from outside: what is invisible is removed and counted, what could end its block is escaped.

The nonce in a block's delimiters is a hash of the block's content. Nobody can write a text that holds the hash of a
block with that text in it, and the same content has the same nonce in every epoch.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

__all__ = ["CONTROL_TAGS", "Cleaned", "clean", "nonce"]

CONTROL_TAGS = (
    "answer",
    "assistant",
    "begin_of_text",
    "bos",
    "code",
    "documents",
    "end_of_turn",
    "eos",
    "eot",
    "evidence",
    "find",
    "find_in_page",
    "function",
    "function_call",
    "information",
    "invoke",
    "observation",
    "open",
    "parameter",
    "python",
    "result",
    "s",
    "search",
    "start_of_turn",
    "system",
    "think",
    "tool",
    "tool_call",
    "tool_calls",
    "tool_response",
    "tool_result",
    "tools",
    "user",
)
"""Names of tags that a renderer or a chat template gives a meaning to."""
_CONTROL = re.compile(
    rf"<(?=[\s/]*(?:{'|'.join(CONTROL_TAGS)})\b|<\s*/?\s*SYS\b|[|｜])|\[(?=\s*/?\s*(?:INST|TOOL_CALLS|outside)\b)",
    re.IGNORECASE,
)
_ESCAPED = {"<": "&lt;", "[": "&#91;"}
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_SUSPECT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """Text that may be shown."""

    text: str
    invisible: int = 0
    """Characters removed that a reader does not see."""
    escaped: int = 0
    """Marks that would have been read as control."""

    def __add__(self, other: Cleaned) -> Cleaned:
        """The counts of both; the texts one after the other."""
        return Cleaned(
            text=self.text + other.text,
            invisible=self.invisible + other.invisible,
            escaped=self.escaped + other.escaped,
        )


def clean(text: str) -> Cleaned:
    """Text from outside as it may stand in an observation."""
    text = text.replace("\r\n", "\n")
    removed = 0

    def visible(match: re.Match[str]) -> str:
        nonlocal removed
        character = match.group()
        if _invisible(character):
            removed += 1
            return ""
        return character

    seen = _SUSPECT.sub(visible, text)
    if "<" not in seen and "[" not in seen:
        return Cleaned(text=seen, invisible=removed)
    escaped, count = _CONTROL.subn(lambda match: _ESCAPED[match.group()], seen)
    return Cleaned(text=escaped, invisible=removed, escaped=count)


def nonce(*content: str) -> str:
    """16 hexadecimal digits that stand for the content."""
    digest = hashlib.blake2b(digest_size=8)
    for piece in content:
        data = piece.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _invisible(character: str) -> bool:
    code = ord(character)
    variation = 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF
    return variation or character in _FILLERS or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn")
