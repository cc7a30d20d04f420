"""A match in a process of its own."""

from __future__ import annotations

import re

import pytest

from agenthub.rewards.matching import fullmatch


@pytest.mark.parametrize(
    ("pattern", "text", "flags", "found"),
    [
        ("[0-9]+", "42", 0, True),
        ("[0-9]+", "42x", 0, False),
        ("a.b", "A\nB", re.DOTALL | re.IGNORECASE, True),
        ("\ud800?", "\x00\ud800"[1:], 0, True),
    ],
)
async def test_a_match_says_what_re_says(pattern: str, text: str, flags: int, found: bool) -> None:
    assert await fullmatch(pattern, text, flags) is found


async def test_a_match_without_end_is_ended() -> None:
    assert await fullmatch("(a+)+b", "a" * 64, 0, timeout_s=0.5) is None
