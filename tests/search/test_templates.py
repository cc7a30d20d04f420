"""How turns of search agents are read: the first complete action, and any text at all gives something."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.registry import registry
from agenthub.renderer import Parsed

NAMES = ["search_tags", "search_r1", "search_zerosearch", "search_verl", "search_tool_call", "search_json"]
MARKS = ["<search>", "</search>", "<answer>", "</answer>", "<open>", "</open>", "<find>", "</find>", "<python>"]
MARKS += [
    "<tool_call>",
    "</tool_call>",
    '{"name": "search", "arguments": {"query_list": ["a", "b"]}}',
    "x",
    " | 2",
    "\n",
]
MARKS += ['{"tool": "search", "arguments": {"query": "q"}}', '{"answer": "a"}', "{", "}", "<think>", "</think>"]


def read(name: str, text: str) -> Parsed:
    parsed: Parsed = registry("protocol").load(name)().read(text)
    return parsed


@pytest.mark.parametrize("name", NAMES)
@given(text=st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=12).map("".join))
def test_reading_is_total_and_keeps_a_start_of_the_text(name: str, text: str) -> None:
    protocol = registry("protocol").load(name)()
    parsed = protocol.read(text)
    assert text.startswith(parsed.text)
    assert protocol.complete(text) == (bool(parsed.calls) or parsed.answer is not None)
    if parsed.calls or parsed.answer is not None:
        again = protocol.read(parsed.text)
        assert (again.calls, again.answer) == (parsed.calls, parsed.answer)
        assert parsed.text[-1] in protocol.endings


@given(
    st.lists(st.sampled_from(["<search>", "</search>", "<answer>", "</answer>", "a", "\n"]), max_size=14).map("".join)
)
def test_search_r1_reads_as_its_published_pattern(text: str) -> None:
    match = re.search(r"<(search|answer)>(.*?)</\1>", text, re.DOTALL)
    parsed = read("search_r1", text)
    if match is None:
        assert not parsed.calls and parsed.answer is None
    elif match[1] == "answer":
        assert (parsed.answer, parsed.text) == (match[2].strip(), text[: match.end()])
    else:
        assert parsed.calls[0].arguments == {"query": match[2].strip()} and parsed.text == text[: match.end()]


def call(name: str, text: str) -> tuple[Any, Any]:
    (one,) = read(name, text).calls
    return one.tool, dict(one.arguments)


def test_the_tags_of_every_tool() -> None:
    assert call("search_tags", "I <search> a b </search> rest") == ("search", {"query": "a b"})
    assert call("search_tags", "<open> doc-1 </open>") == ("open", {"id": "doc-1"})
    assert call("search_tags", "<open>https://a.org/x | 3</open>") == ("open", {"url": "https://a.org/x", "page": 3})
    assert call("search_tags", "<find> d | some text </find>") == ("find_in_page", {"id": "d", "find": "some text"})
    assert call("search_tags", "<python>\nprint(1)\n</python>") == ("python", {"code": "print(1)"})
    assert "needs an id" in (read("search_tags", "<find> d </find>").parse_error or "")
    assert "number" in (read("search_tags", "<open> d | x </open>").parse_error or "")
    assert "not closed" in (read("search_tags", "<search> d").parse_error or "")


def test_verl_spreads_its_list_of_queries() -> None:
    text = '<tool_call>{"name": "search", "arguments": {"query_list": ["a", "b"]}}</tool_call>'
    calls = read("search_verl", text).calls
    assert [dict(it.arguments) for it in calls] == [{"query": "a"}, {"query": "b"}]


def test_json_takes_the_first_object_that_acts() -> None:
    assert call("search_json", 'so {"x": 1} then {"tool": "open", "arguments": {"id": "a"}} {"answer": 1}') == (
        "open",
        {"id": "a"},
    )
    assert read("search_json", '{"answer": 42}').answer == "42"
    assert read("search_json", "{{{{").parse_error


@pytest.mark.parametrize("name", NAMES)
def test_a_long_text_of_open_marks_is_read_at_once(name: str) -> None:
    text = "<search>" * 20_000 + '{"a' * 5_000
    assert not read(name, text).calls
