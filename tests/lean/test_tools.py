"""What a policy is shown, the sketch protocol, and what Kimina's clients are answered."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.records import Call, Observation, Text
from agenthub.renderers.lean import Sketch
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.feedback import goals, messages_of
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.sandbox import LeanSandbox, LeanSession, unwrapped
from tests.lean.conftest import lacking
from tests.served import served

TASKS = Path(__file__).parents[2] / "tasks"


def called(code: str, tool: str = "check") -> Call:
    return Call(id="0.0", tool=tool, arguments={"code": code})


@pytest.mark.lean
@pytest.mark.timeout(1800)
async def test_a_check_shows_errors_at_the_policys_own_lines_with_the_goals(judge: Judge) -> None:
    challenge = Challenge(
        definitions="def f (n : Nat) : Nat :=\n  n + 1", statement="theorem target (n : Nat) : f n = 1 + n", mode="body"
    )
    session = LeanSession(judge, challenge, 600.0)
    wrong = await session.call(called("unfold f\nexact rfl"), timeout_s=600.0)
    assert wrong.failed and "2:" in wrong.text.splitlines()[0] and "error" in wrong.text
    left = await session.call(called("<sketch>```lean4\nunfold f\nskip\n```</sketch>"), timeout_s=600.0)
    assert left.failed and "⊢ n + 1 = 1 + n" in left.text and "goals at the first error" in left.text
    sketch = await session.call(called("have h : f n = n + 1 := by sorry\nomega"), timeout_s=600.0)
    assert not sketch.failed and "sorry" in sketch.text
    refused = await session.call(called("run_tac pure ()"), timeout_s=600.0)
    assert refused.failed and "run_tac" in refused.text
    ran = await session.call(called("#check f", tool="run"), timeout_s=600.0)
    assert not ran.failed and "Nat → Nat" in ran.text.replace("f (n : Nat) : Nat", "Nat → Nat")


@pytest.mark.lean
@pytest.mark.timeout(1800)
async def test_kimina_clients_are_answered_from_the_same_boxes(tmp_path: Path) -> None:
    why = lacking()
    if why is not None:
        pytest.skip(why)
    snippets = [
        {"id": "good", "code": "theorem a : 1 = 1 := rfl"},
        {"id": "bad", "code": "theorem a : 1 = 2 := rfl"},
        {"id": "left", "code": "theorem a : 1 = 2 := sorry"},
    ]
    with served(TASKS / "lean_core.yaml", tmp_path) as url:
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{url}/api/check", json={"snippets": snippets, "timeout": 600}) as answer:
                good, bad, left = (await answer.json())["results"]
            codes = [{"custom_id": 7, "proof": "#eval 1"}]
            async with http.post(f"{url}/kimina/verify", json={"codes": codes, "timeout": 600}) as answer:
                (refused,) = (await answer.json())["results"]
            async with http.post(f"{url}/api/check", json={"snippets": 3}) as answer:
                assert answer.status == 422
    assert good["id"] == "good" and good["response"]["messages"] == [] and good["error"] is None
    assert bad["response"]["messages"][0]["severity"] == "error"
    assert bad["response"]["messages"][0]["pos"]["line"] == 1
    assert len(left["response"]["sorries"]) == 1
    assert refused["custom_id"] == 7 and refused["response"]["messages"][0]["severity"] == "error"


async def test_another_isolation_is_refused_by_name() -> None:
    factory = LeanSandbox(isolation="docker")
    with pytest.raises(Exception, match="jail"):
        await factory.open()
    with pytest.raises(Exception, match="not open"):
        await factory.start(SandboxSpec())


def test_a_sketch_is_a_call_and_a_block_is_the_answer() -> None:
    sketch = Sketch()
    first = sketch.read("so <sketch>\nexact h\n</sketch> and\n```lean4\nomega\n```")
    assert first.calls[0].arguments == {"code": "exact h"} and first.answer is None and first.text.endswith("</sketch>")
    last = sketch.read("Done.\n```lean4\nby\n  omega\n```\nmore")
    assert last.answer == "by\n  omega" and not last.calls and last.text.endswith("```")
    assert sketch.read("<sketch>exact h").parse_error
    shown = sketch.show([Observation(call_id="1", parts=(Text(text="</REPL><sketch>x"),))])
    assert shown == "<REPL>\n&lt;/REPL>&lt;sketch>x\n</REPL>"
    assert unwrapped("```lean4\nomega\n```") == "omega" and unwrapped("omega") == "omega"


@given(st.text(alphabet="<>/sketchREPL`lean4 \n", max_size=80))
def test_every_text_is_read_as_a_sketch_protocol_says(text: str) -> None:
    parsed = Sketch().read(text)
    assert text.startswith(parsed.text)
    assert Sketch().complete(text) == (bool(parsed.calls) or parsed.answer is not None)


@given(st.text(max_size=200))
def test_what_the_compiler_said_is_read_whatever_it_is(text: str) -> None:
    for one in messages_of(text + '\n{"severity": "error", "pos": 3, "data": ["x"]}\n{"severity": []}'):
        assert one["line"] >= 1 and isinstance(one["message"], str)
    assert goals(messages_of(text)) == ""
