"""Output is kept in bounded memory, cut in the middle, and harmless to read."""

from __future__ import annotations

import hashlib
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from agenthub.sandboxes.python.capture import Capture, Kept, harmless

CHUNKS = st.lists(st.binary(max_size=60), max_size=10)


def fed(shown_bytes: int, chunks: list[bytes]) -> Capture:
    capture = Capture(shown_bytes)
    for chunk in chunks:
        capture.feed(chunk)
    return capture


@given(CHUNKS, st.integers(2, 100))
def test_the_way_it_was_cut_does_not_show(chunks: list[bytes], shown_bytes: int) -> None:
    data = b"".join(chunks)
    shown = fed(shown_bytes, chunks).shown()
    assert shown == fed(shown_bytes, [data]).shown()
    assert shown.truncated == (len(data) > 2 * (shown_bytes // 2))
    assert shown.sha256 == (hashlib.sha256(data).hexdigest() if shown.truncated else "")


@given(st.text(min_size=200), st.integers(10, 100))
def test_a_cut_goes_through_no_character(text: str, shown_bytes: int) -> None:
    shown = fed(shown_bytes, [text.encode("utf-8", "replace")]).shown()
    assert "\\x" not in shown.text.replace(harmless(text), "") or "\\x" in harmless(text)


def test_head_and_tail_stay_and_the_middle_is_counted() -> None:
    shown = fed(10, [b"abcdefgh" * 10]).shown()
    assert shown.text == "abcde\n... 70 bytes cut ...\ndefgh"


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_character_is_left(text: str) -> None:
    left = harmless(text)
    assert all(unicodedata.category(character) not in ("Cc", "Cs") or character in "\n\t" for character in left)
    assert not set(left) & set("\u202e\u2066\u200f\ufeff\U000e0041")


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_text_that_is_harmless_stays(text: str) -> None:
    assert harmless(text) == text


@given(CHUNKS, st.integers(0, 100))
def test_a_graded_script_keeps_its_first_bytes(chunks: list[bytes], most: int) -> None:
    kept = Kept(most)
    for chunk in chunks:
        kept.feed(chunk)
    data = b"".join(chunks)
    assert bytes(kept.data) == data[:most] and kept.total == len(data)
