"""A lexer for Lean source: comments, texts, characters and quoted names are told apart from words and signs.

It knows less than Lean's and refuses what it does not understand; it is the first of three steps and trusted with none.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Token", "Unreadable", "interpolated", "tokens"]

_REST = frozenset("'!?_")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?")
_BIDI = frozenset("\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")


class Unreadable(Exception):
    """The text cannot be read as Lean."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token."""

    kind: str
    """word, sign, number, text."""
    text: str
    """Of a word: with its dots; a part in guillemets keeps them."""
    line: int
    at: int
    """Character in the source."""


def _starts_word(char: str) -> bool:
    return char == "_" or char == "«" or char.isalpha() or 0x2080 <= ord(char) <= 0x209C


def _in_word(char: str) -> bool:
    return char in _REST or char.isalnum() or unicodedata.category(char) in ("Mn", "Nl", "No") or char.isdecimal()


class _Lexer:
    def __init__(self, source: str) -> None:
        self.source, self.at, self.line = source, 0, 1

    def fail(self, why: str) -> Unreadable:
        return Unreadable(f"line {self.line}: {why}")

    def move(self, to: int) -> None:
        self.line += self.source.count("\n", self.at, to)
        self.at = to

    def skip_block(self) -> None:
        depth, at = 0, self.at
        while True:
            opening, closing = self.source.find("/-", at), self.source.find("-/", at)
            if closing < 0:
                raise self.fail("a comment that does not end")
            if 0 <= opening < closing:
                depth, at = depth + 1, opening + 2
            else:
                depth, at = depth - 1, closing + 2
                if depth == 0:
                    self.move(at)
                    return

    def text(self, opening: str) -> int:
        """Where a text that starts at `at` ends."""
        at = self.at + len(opening)
        if opening.startswith("r"):
            end = self.source.find('"' + opening[1:-1], at)
            if end < 0:
                raise self.fail("a text that does not end")
            return end + len(opening) - 1
        while at < len(self.source):
            if self.source[at] == "\\":
                at += 2
            elif self.source[at] == '"':
                return at + 1
            else:
                at += 1
        raise self.fail("a text that does not end")

    def raw_opening(self) -> str | None:
        """`r"` or `r##"` at this place."""
        at = self.at + 1
        while self.source[at : at + 1] == "#":
            at += 1
        return self.source[self.at : at + 1] if self.source[at : at + 1] == '"' else None

    def word(self) -> int:
        """Where the dotted word that starts at `at` ends."""
        source, at = self.source, self.at
        while True:
            if source[at : at + 1] == "«":
                end = source.find("»", at)
                if end < 0 or "\n" in source[at:end]:
                    raise self.fail("a quoted name that does not end")
                at = end + 1
            else:
                while at < len(source) and _in_word(source[at]):
                    at += 1
            following = source[at + 1 : at + 2]
            if source[at : at + 1] == "." and following and _starts_word(following):
                at += 1
                continue
            return at

    def char(self) -> int | None:
        """Where a character literal that starts at `at` ends; None where it is a mere apostrophe."""
        rest = self.source[self.at + 1 : self.at + 14]
        if rest[:1] == "\\":
            end = rest.find("'", 2)
            return self.at + 1 + end + 1 if end > 0 else None
        return self.at + 3 if len(rest) > 1 and rest[1] == "'" and rest[0] not in "'\n" else None

    def all(self) -> list[Token]:
        found: list[Token] = []
        while (token := self.next()) is not None:
            found.append(token)
        return found

    def next(self) -> Token | None:
        """The next token; None at the end."""
        source = self.source
        while self.at < len(source):
            char = source[self.at]
            if char in " \t\n\r":
                self.move(self.at + 1)
            elif source.startswith("--", self.at):
                end = source.find("\n", self.at)
                self.move(len(source) if end < 0 else end)
            elif source.startswith("/-", self.at):
                self.skip_block()
            else:
                kind, end = self.token(char)
                token = Token(kind, source[self.at : end], self.line, self.at)
                self.move(end)
                return token
        return None

    def token(self, char: str) -> tuple[str, int]:
        opening = self.raw_opening() if char == "r" else None
        if char == '"' or opening:
            return "text", self.text(opening or char)
        if char == "'":
            end = self.char()
            return ("text", end) if end else ("sign", self.at + 1)
        number = _NUMBER.match(self.source, self.at)
        if number:
            # It ends where Lean's does: letters that stand right behind it are the next word, and may be a command.
            return "number", number.end()
        if _starts_word(char):
            # An interpolated text is a word and a text behind it; `interpolated` reads what is between its braces.
            return "word", self.word()
        if char == "#" and not self.source[self.at + 1 : self.at + 2].isdecimal():
            at = self.at + 1
            while at < len(self.source) and (_in_word(self.source[at]) and self.source[at] not in "'"):
                at += 1
            return ("word" if at > self.at + 1 else "sign"), at
        return "sign", self.at + 1


def tokens(source: str) -> list[Token]:
    """The tokens of a file.

    Raises:
        Unreadable: it has characters that do not show, or something that does not end.
    """
    for at, char in enumerate(source):
        if char not in "\n\t\r" and (char in _BIDI or unicodedata.category(char) in ("Cc", "Co", "Cs")):
            raise Unreadable(f"line {source.count(chr(10), 0, at) + 1}: the character {char!a}")
    return _Lexer(source).all()


def interpolated(text: str) -> list[Token]:
    """The tokens between the braces of an interpolated text.

    Raises:
        Unreadable: a brace that does not close in it. A text between braces may have ended it for this lexer alone.
    """
    lexer, found, at = _Lexer(text), [], 1
    while at < len(text):
        if text[at] != "{":
            at += 2 if text[at] == "\\" else 1
            continue
        lexer.at, depth = at + 1, 1
        while depth:
            token = lexer.next()
            if token is None:
                raise lexer.fail("a brace that does not close")
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            found += [token] if depth else []
        at = lexer.at
    return found
