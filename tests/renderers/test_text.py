"""The text protocols read what they say they read, and reading is total."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.records import Observation, Text
from agenthub.renderer import TextProtocol
from agenthub.renderers.text import Boxed, FenceSimpletir, FenceStrict, Native, boxed, fenced

MARKS = "``` | ```python\n | ```py\n | ```\n | \n | \n``` | \\boxed{ | { | } | \\{ | \\ | x | print(1) | `"
CALLS = [
    "é",
    "\x00",
    "\ud800",
    "<tool_call>",
    "</tool_call>",
    '{"name": "f", "arguments": {}}',
    "<think>",
    "</think>",
    " ",
]
PIECES = st.sampled_from([*MARKS.split(" | "), *CALLS])
TEXTS = st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=40)
PROTOCOLS = [FenceStrict(), FenceSimpletir(), Boxed(), Native()]


def _code(protocol: TextProtocol, text: str) -> list[object]:
    return [call.arguments["code"] for call in protocol.read(text).calls]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: type(protocol).__name__)
@given(text=TEXTS)
def test_any_text_is_read_as_a_prefix_of_itself(protocol: TextProtocol, text: str) -> None:
    parsed = protocol.read(text)
    assert text.startswith(parsed.text)
    assert protocol.complete(text) in (True, False)
    again = protocol.read(parsed.text)
    assert (again.calls, again.answer) == (parsed.calls, parsed.answer)


@given(text=TEXTS)
def test_a_strict_action_is_complete_at_the_first_prefix_that_says_so(text: str) -> None:
    strict = FenceStrict()
    prefixes = [text[:end] for end in range(len(text) + 1)]
    first = next((prefix for prefix in prefixes if strict.complete(prefix)), None)
    if first is None:
        assert strict.read(text).calls == () and strict.read(text).answer is None
    else:
        assert strict.read(first).text == first
        assert first.endswith(("```", "}"))


@pytest.mark.parametrize("opening", ["```python\n", "```py\n", "```\n"])
def test_strict_code_is_between_an_opening_line_and_a_bare_fence(opening: str) -> None:
    parsed = FenceStrict().read(f"Let me compute.\n{opening}x = 1\nprint(x)\n```\nand then more")
    assert [call.arguments for call in parsed.calls] == [{"code": "x = 1\nprint(x)"}]
    assert parsed.text == f"Let me compute.\n{opening}x = 1\nprint(x)\n```"
    assert parsed.parse_error is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nprint(1)", "no closing fence"),
        ("```python\nprint(1)```", "fence inside"),
        ("```python\nprint(1)\n```x", "fence inside"),
        ("```python\n```python\nprint(1)\n```", "fence inside"),
        ("```python\nprint('```')\n```", "fence inside"),
        ("```python\n\n```", "empty"),
        ("```python\n```", "empty"),
        ("```ruby\nputs 1\n```", "must open with"),
        ("see ```python\nprint(1)\n```", "must start its line"),
        ("\\boxed{1", "do not close"),
    ],
)
def test_strict_refuses_and_says_why(text: str, error: str) -> None:
    parsed = FenceStrict().read(text)
    assert parsed.calls == () and parsed.answer is None
    assert parsed.parse_error is not None and error in parsed.parse_error


def test_strict_takes_the_action_that_comes_first() -> None:
    strict = FenceStrict()
    assert strict.read("\\boxed{7} ```python\nprint(1)\n```").answer == "7"
    code_first = strict.read("```python\nprint('\\boxed{3}')\n```\n\\boxed{7}")
    assert code_first.answer is None and len(code_first.calls) == 1


def test_prose_without_an_action_is_no_error() -> None:
    parsed = FenceStrict().read("The answer is 12.")
    assert (parsed.calls, parsed.answer, parsed.parse_error) == ((), None, None)


def test_simpletir_cuts_after_the_first_block_and_lets_an_answer_stand_beside_code() -> None:
    simpletir = FenceSimpletir()
    both = simpletir.read("I say \\boxed{4}\n```python\nprint(2+2)\n```\nrest")
    assert both.answer == "4" and _code(simpletir, both.text) == ["print(2+2)"]
    assert both.text.endswith("\n```")
    assert simpletir.read("```python\nprint(1)\n```\n\\boxed{9}").answer is None
    assert simpletir.read("so \\boxed{12").answer == "12"
    assert _code(simpletir, "see ```\n```py\n1\n```") == ["```py\n1"]
    assert simpletir.read("```python\nprint(1)").calls == ()


def test_a_box_balances_its_braces() -> None:
    def content(text: str) -> str | None:
        span = boxed(text)
        return span.content if span else None

    assert content("\\boxed{\\frac{1}{2}} x") == "\\frac{1}{2}"
    assert content("\\boxed{\\{1, 2\\}}") == "\\{1, 2\\}"
    assert content("\\boxed{\\}}") == "\\}"
    assert content("\\boxed{a \\boxed{b}") == "b"
    assert content("boxed{1}") is None


def test_native_reads_calls_of_both_families_and_plain_answers() -> None:
    native = Native()
    call = '<tool_call>\n{"name": "python", "arguments": {"code": "1"}}\n</tool_call>\n'
    two = native.read(f"<think>hm</think>\n{call}{call}")
    assert [(call.tool, dict(call.arguments)) for call in two.calls] == [("python", {"code": "1"})] * 2
    llama = native.read('{"name": "python", "parameters": {"code": "1"}}')
    assert [(call.tool, dict(call.arguments)) for call in llama.calls] == [("python", {"code": "1"})]
    assert native.read("<think>\nhm\n</think>\n\nIt is 4.").answer == "It is 4."
    assert native.read("It is \\boxed{4}.").answer == "4"
    assert native.read(" \n").answer is None


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{",
        '<tool_call>{"name": "f"}',
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": 3}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": "\\ud800"}}</tool_call>',
        "<tool_call>" + "[" * 100_000 + "</tool_call>",
        '{"name": "f", "parameters": {',
        "<think>no end",
    ],
)
def test_a_broken_native_call_is_an_error_and_no_answer(text: str) -> None:
    parsed = Native().read(text)
    assert parsed.calls == () and parsed.answer is None and parsed.parse_error


@given(text=TEXTS)
def test_a_shown_observation_cannot_end_its_block(text: str) -> None:
    lines = fenced(text, "output").split("\n")
    fence = lines[0].removesuffix("output")
    assert lines[-1] == fence
    assert all(fence not in line for line in lines[1:-1])


def test_blocks_tell_output_error_and_notice_apart() -> None:
    def seen(text: str, *, failed: bool = False, call: str = "0.0") -> Observation:
        return Observation(call_id=call, parts=(Text(text=text),), failed=failed)

    strict = FenceStrict()
    assert strict.show([seen("42\n")]) == "```output\n42\n```"
    assert strict.show([seen("NameError: x", failed=True)]) == "```error\nNameError: x\n```"
    assert strict.show([seen("say more", call="")]) == "```notice\nsay more\n```"
    assert strict.show([seen("")]) == "```output\n(no output)\n```"
    assert strict.show([seen("1"), seen("2")]) == "```output\n1\n```\n```output\n2\n```"
    assert FenceSimpletir().show([seen("42\n")]) == "\nCode execution result: 42\n"


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_native_call_with_a_number_that_is_not_json_is_a_parse_error(number: str) -> None:
    parsed = Native().read(f'<tool_call>{{"name": "python", "arguments": {{"code": {number}}}}}</tool_call>')
    assert parsed.calls == ()
    assert parsed.parse_error is not None
