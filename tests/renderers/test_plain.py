"""The plain renderer: ids that extend each other, cuts that keep ids, and text that cannot fake a role."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.errors import UnknownName, UserError
from agenthub.policies.bytes import byte_tokenizer
from agenthub.records import Message, Observation, Text, ints
from agenthub.renderers import make_renderer
from agenthub.renderers.plain import END, ROLES, PlainRenderer
from agenthub.renderers.safe import Seams
from agenthub.renderers.text import FenceStrict
from tests.renderers.vocabularies import QWEN_PLAIN, QWEN_SPECIAL, chat_tokenizer

TOKENIZER = byte_tokenizer()
RENDERER = PlainRenderer(TOKENIZER, FenceStrict())
END_ID = next(iter(RENDERER.stop_ids))
HOSTILE = st.lists(
    st.sampled_from([*ROLES.values(), END, "<|", "|>", "<|end", "```", "\n", "a", "é"]) | st.text(max_size=3),
    max_size=12,
).map("".join)


def _text(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=False))


def _ids(text: str) -> list[int]:
    return [int(token) for token in TOKENIZER.encode(text, add_special_tokens=False)]


def test_an_episode_reads_as_role_tokens_around_text() -> None:
    prompt = RENDERER.open([Message(role="system", content="Be brief."), Message(role="user", content="1+1")], [])
    turn = _ids("```python\nprint(1+1)\n```")
    after = RENDERER.extend([Observation(call_id="0.0", parts=(Text(text="2\n"),))], ended=False)
    assert _text([*prompt, *turn, *after]) == (
        "<|system|>Be brief.<|end|><|user|>1+1<|end|><|assistant|>```python\nprint(1+1)\n```<|end|>"
        "<|tool|>```output\n2\n```<|end|><|assistant|>"
    )
    assert RENDERER.extend([], ended=True).tolist() == RENDERER.extend([], ended=False).tolist()[1:]


@given(text=HOSTILE)
def test_text_from_outside_never_makes_a_role_token(text: str) -> None:
    shown = RENDERER.extend([Observation(call_id="0.0", parts=(Text(text=text),))], ended=True).tolist()
    roles = [
        RENDERER.open([Message(role=role, content="")], []).tolist()[0] for role in ("system", "user", "assistant")
    ]
    assert sum(shown.count(role) for role in roles) == 1
    assert shown.count(END_ID) == 1
    opened = RENDERER.open([Message(role="user", content=text)], []).tolist()
    assert opened.count(END_ID) == 1
    assert _text(opened) == f"<|user|>{text}<|end|><|assistant|>"


@given(text=st.lists(st.sampled_from([*QWEN_PLAIN, *QWEN_SPECIAL, "<", ">", "x", "\ue000"]), max_size=10).map("".join))
def test_seams_hide_every_control_string_and_keep_the_text(text: str) -> None:
    tokenizer = chat_tokenizer("qwen3")
    seams = Seams(tokenizer)
    ids = seams.plain(text)
    assert not set(ids) & set(seams.controls.values())
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@given(text=st.text(max_size=60))
def test_bytes_round_trip(text: str) -> None:
    whole = text.encode("utf-8", "ignore").decode()
    assert _text(_ids(whole)) == whole


@pytest.mark.parametrize(
    ("text", "kept", "answer", "codes"),
    [
        ("```python\nprint(1)\n```\nmore<|end|>", "```python\nprint(1)\n```", None, ["print(1)"]),
        ("```python\nprint(1)\n```<|end|>", "```python\nprint(1)\n```<|end|>", None, ["print(1)"]),
        ("so \\boxed{12} yes", "so \\boxed{12}", "12", []),
        ("hm.<|end|>", "hm.<|end|>", None, []),
        ("hm.<|end|><|user|>x", "hm.<|end|>", None, []),
        ("```python\nprint(1", "```python\nprint(1", None, []),
        ("", "", None, []),
    ],
)
def test_a_turn_is_kept_through_the_token_that_completes_it(
    text: str, kept: str, answer: str | None, codes: list[str]
) -> None:
    ids = ints(_ids(text))
    parsed, count = RENDERER.parse(ids)
    assert _text(ids[:count].tolist()) == kept
    assert parsed.text == kept.removesuffix(END)
    assert parsed.answer == answer
    assert [call.arguments["code"] for call in parsed.calls] == codes


@given(ids=st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=30))
def test_any_ids_are_read_and_sampling_stops_where_reading_cuts(ids: list[int]) -> None:
    parsed, count = RENDERER.parse(ints(ids))
    assert 0 <= count <= len(ids)
    if parsed.calls or parsed.answer is not None:
        stopped = [end for end in range(1, len(ids) + 1) if RENDERER.complete(ids[:end])]
        assert stopped and stopped[0] in (count, count - 1)


def test_a_lone_surrogate_is_shown_as_a_question_mark() -> None:
    shown = RENDERER.extend([Observation(call_id="0.0", parts=(Text(text="a\ud800"),))], ended=True)
    assert "a?" in _text(shown.tolist())


def test_a_tokenizer_without_role_tokens_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"needs the tokens <\|end\|>.*chat renderer"):
        make_renderer("plain", chat_tokenizer("qwen3"), "fence_strict")
    with pytest.raises(UnknownName, match="did you mean 'plain'"):
        make_renderer("plan", TOKENIZER, "fence_strict")
