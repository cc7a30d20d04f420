"""Frames arrive whole however they are cut, and nothing else arrives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.sandboxes.python.frames import FrameError, FrameParser, encode

MESSAGES = st.lists(
    st.dictionaries(st.text(st.characters(exclude_categories=())), st.integers() | st.text() | st.none(), max_size=3),
    max_size=5,
)


@given(MESSAGES, st.lists(st.integers(0, 300), max_size=6))
def test_messages_survive_any_cut(messages: list[dict[str, Any]], cuts: list[int]) -> None:
    data = b"".join(map(encode, messages))
    parser = FrameParser(1 << 20)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    seen = [message for a, b in pairwise(edges) for message in parser.feed(data[a:b])]
    assert seen == messages


@given(st.binary(max_size=200))
def test_any_bytes_give_objects_or_an_error(data: bytes) -> None:
    parser = FrameParser(100)
    try:
        messages = parser.feed(data)
    except FrameError:
        return
    assert all(isinstance(message, dict) for message in messages)


@pytest.mark.parametrize(
    "body", [b"", b"nope", b"[]", b"3", b"\xff", b"[" * 90_000, b'{"a": ' + b"9" * 5000 + b"}", b"{}{}"]
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        FrameParser(1 << 20).feed(len(body).to_bytes(4, "big") + body)


def test_a_long_frame_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(FrameError, match="at most 10"):
        FrameParser(10).feed((11).to_bytes(4, "big"))
