"""Documents cut into passages, each with its span."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["PASSAGE_CHARS", "spans"]

PASSAGE_CHARS = 1200
"""A passage has at most so many characters; a document of up to half as many more is one passage."""
_BREAKS = ("\n\n", "\n", ". ", " ")


def spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each passage, which together are the text; cut at a paragraph, a line, a sentence or a word."""
    start = 0
    while len(text) - start > PASSAGE_CHARS * 3 // 2:
        end = _cut(text, start)
        yield start, end
        start = end
    yield start, len(text)


def _cut(text: str, start: int) -> int:
    low, high = start + PASSAGE_CHARS // 2, start + PASSAGE_CHARS
    for mark in _BREAKS:
        found = text.rfind(mark, low, high)
        if found >= 0:
            return found + len(mark)
    return high
