"""Field maps of JSONL sources."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.errors import ConfigError
from agenthub.suites.fields import fill

ROW = {"q": "How many?", "a": "2*3 = <<2*3=6>>6\n6+1 = <<6+1=7>>7\n#### 1,007 ", "n": 3, "list": [1, 2]}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{q}", "How many?"),
        ("Q: {q} {n}", "Q: How many? 3"),
        ("{n}", 3),
        ("{list}", [1, 2]),
        ("{a|after:####|remove:,|strip}", "1007"),
        ("{q|before: |lower}", "how"),
        (r"\boxed{{{n}}}", r"\boxed{3}"),
        ("{{n}}", "{n}"),
        ({"x": ["{n}", 5, None, True]}, {"x": [3, 5, None, True]}),
        ([{"each": "a", "find": r"<<(?P<e>[^=]+)=", "give": "print({e})"}, "end"], ["print(2*3)", "print(6+1)", "end"]),
        ([{"each": "q", "find": "nothing", "give": "x"}], []),
        ({"each": "a"}, {"each": "a"}),
    ],
)
def test_templates_are_filled(template: Any, filled: Any) -> None:
    assert fill(template, ROW, "s.yaml:3") == filled


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{qq}", "the row has no field 'qq'; did you mean 'q'?"),
        ("{q|stripp}", "no filter named 'stripp'; did you mean 'strip'?"),
        ("{q|after}", "filter 'after' is written 'after:TEXT'"),
        ("{q|strip:x}", "filter 'strip:x' is written 'strip'"),
        ("{n|strip}", "field 'n' is no text"),
        ("{q", "a single '{'"),
        ("q}", "a single '}'"),
        ([{"each": "n", "find": "x", "give": "y"}], "field 'n' is no text"),
        ([{"each": "q", "find": "(", "give": "y"}], "no regular expression"),
    ],
)
def test_a_bad_template_is_told_with_its_place(template: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fill(template, ROW, "s.yaml:3")
    assert str(caught.value).startswith("s.yaml:3: ")
    assert message in str(caught.value)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_with_doubled_braces_comes_back(text: str) -> None:
    assert fill(text.replace("{", "{{").replace("}", "}}"), {}, "p") == text


@settings(deadline=None)
@given(st.text(alphabet="{}|:qna x", max_size=20))
def test_any_template_is_filled_or_told(template: str) -> None:
    try:
        fill(template, ROW, "s.yaml:3")
    except ConfigError as told:
        assert str(told).startswith("s.yaml:3: ")
