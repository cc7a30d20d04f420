"""Text that was not written by a template must never become a control token.

A control token is one of the tokenizer's special tokens, or an added token that looks like mark-up (`<tool_call>`).
Where text from a task or a tool holds the string of one, a seam is put inside the string and the two sides are encoded
apart: the decoded text is the same, and no control token comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agenthub.errors import UserError
from agenthub.records import Ints, ints
from agenthub.renderer import Parsed, TextProtocol

__all__ = ["Endings", "HFTokenizer", "Seams"]

_PRIVATE_USE = range(0xE000, 0xF8FF)


class HFTokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that the renderers use."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...

    def encode(self, text: str, /, *, add_special_tokens: bool = False) -> list[int]: ...

    def decode(self, ids: Sequence[int], /, *, skip_special_tokens: bool = False) -> str: ...


class Seams:
    """Encodes text so that control tokens come from trusted text alone."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self._tokenizer = tokenizer
        self.controls: dict[str, int] = {
            str(token.content): number
            for number, token in tokenizer.added_tokens_decoder.items()
            if len(str(token.content)) > 1 and (token.special or re.fullmatch(r"<.+>", str(token.content)))
        }
        alternatives = "|".join(re.escape(string) for string in sorted(self.controls, key=len, reverse=True))
        self._start = re.compile(f"(?={alternatives})") if alternatives else None

    def mark(self, texts: Sequence[str]) -> tuple[list[str], str]:
        """`texts` with a seam inside each control string, and the seam: a character that none of them holds."""
        seam = next(chr(code) for code in _PRIVATE_USE if not any(chr(code) in text for text in texts))
        if self._start is None:
            return list(texts), seam
        marked: list[str] = []
        for text in texts:
            for match in reversed(list(self._start.finditer(text))):
                text = text[: match.start() + 1] + seam + text[match.start() + 1 :]
            marked.append(text)
        return marked, seam

    def encode(self, text: str, seam: str) -> list[int]:
        """Ids of marked text; control strings without a seam become control tokens. What is not Unicode text (a lone
        surrogate) becomes a question mark."""
        ids: list[int] = []
        for piece in text.encode("utf-8", "replace").decode().split(seam):
            if piece:
                ids += self._tokenizer.encode(piece, add_special_tokens=False)
        return ids

    def plain(self, text: str) -> list[int]:
        """Ids of text from outside: never a control token."""
        marked, seam = self.mark([text])
        return self.encode(marked[0], seam)


class Endings:
    """Reads turns of ids with a text protocol: where the action is complete, and what it says."""

    def __init__(self, tokenizer: HFTokenizer, protocol: TextProtocol, stop_ids: frozenset[int]) -> None:
        if not stop_ids:
            raise UserError("the tokenizer has no token that ends a turn")
        self._tokenizer, self._protocol, self._stop_ids = tokenizer, protocol, stop_ids
        self._endings: frozenset[str] | None = getattr(protocol, "endings", None)
        self._can_end: dict[int, bool] = {}

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def complete(self, ids: Sequence[int]) -> bool:
        """True as soon as the ids hold a complete action; decodes only where the last token can end one."""
        return bool(ids) and self._may_end(int(ids[-1])) and self._protocol.complete(self.text(ids))

    def kept(self, ids: Ints) -> tuple[Ints, bool]:
        """The ids that count: through the token that completes the action, or the first stop token; True where the
        last one is a stop token."""
        stops = [index for index, token in enumerate(ids.tolist()) if token in self._stop_ids]
        end = stops[0] if stops else len(ids)
        for count in range(1, end + 1):
            if self.complete(ids[:count].tolist()):
                ended = count == end and bool(stops)
                return ints(ids[: count + ended]), ended
        return ints(ids[: end + bool(stops)]), bool(stops)

    def parse(self, ids: Ints) -> tuple[Parsed, int]:
        """As `Renderer.parse`."""
        kept, ended = self.kept(ids)
        text = self.text(kept[: len(kept) - ended].tolist())
        parsed = self._protocol.read(text)
        return Parsed(text=text, calls=parsed.calls, answer=parsed.answer, parse_error=parsed.parse_error), len(kept)

    def _may_end(self, token: int) -> bool:
        if self._endings is None:
            return True
        if token not in self._can_end:
            self._can_end[token] = any(char in self.text([token]) for char in self._endings)
        return self._can_end[token]
