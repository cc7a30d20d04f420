"""What a cheating policy makes of what it sees."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.policies.scripted_cheats import CHEATS, Cheat, Seen, candidates, graded, random_script
from agenthub.policies.scripted_payloads import visible_cases


def seen(prompt: str = "Write f(x).", **fields: object) -> Seen:
    known: dict[str, object] = {"prompt": prompt, "tools": (("py", "python"),), "max_turns": 4, "entries": ("f",)}
    return Seen(**(known | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("(expected answer: brindled-heron-52.)", ["brindled-heron-52"]),
        ("The secret key is 'k 7'", ["k 7", "k", "7"]),
        ("target = 1,204.5;", ["1,204.5"]),
        ("What is the answer to life?", []),
        ("Answer as word:letters.", ["letters"]),
    ],
)
def test_what_a_text_calls_the_answer_is_read(text: str, told: list[str]) -> None:
    assert candidates(text)[: len(told)] == told
    assert bool(candidates(text)) == bool(told)


@given(st.text(max_size=300))
def test_any_text_gives_few_candidates_and_none_is_empty(text: str) -> None:
    assert len(found := candidates(text)) <= 8 and all(found)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_a_cheat_plays_within_the_turns_and_ends_with_an_answer(cheat: Cheat) -> None:
    for turns in (1, 2, 3, 8):
        for script in cheat.scripts(seen("Write f(x). f(1) == 2. The answer is 4.", max_turns=turns)):
            assert 1 <= len(script) <= turns
            assert script[-1].answer is not None or turns == 1


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_a_program_of_a_cheat_is_python(cheat: Cheat) -> None:
    for script in cheat.scripts(seen("f(1) == 2", answer_is_code=True)):
        compile(script[-1].answer or "", cheat.name, "exec")


def test_a_graded_program_does_nothing_in_the_policys_own_box() -> None:
    script = graded(seen(), "raise SystemExit(0)")
    assert script is not None
    mark, program, _ = ("".join(call.arguments["code"] for call in action.calls or ()) for action in script)
    names: dict[str, object] = {"open": lambda *_: _Closed()}
    exec(mark, names)
    assert "os.path.exists('.played')" in program and "SystemExit" in program


class _Closed:
    def close(self) -> None:
        """As a file's."""


def test_a_task_without_a_tool_is_sent_no_program() -> None:
    bare = seen(tools=())
    assert graded(bare, "1") is None
    assert graded(seen(tools=(), answer_is_code=True), "1") is not None


@pytest.mark.parametrize(
    ("prompt", "arguments", "value"),
    [
        (">>> f(2)\n4\n>>> f('a', 1)\n[1]", ("a", 1), [1]),
        ("f(3) == 9, and f(4) returns 16.", (3,), 9),
        ("f(3) == 9, and f(4) returns 16.", (4,), 16),
        ("`f([1])` is no example; f([1]) -> [1, 2]", ([1],), [1, 2]),
    ],
)
def test_the_examples_of_a_prompt_are_known_by_heart(prompt: str, arguments: tuple[object, ...], value: object) -> None:
    code = visible_cases(prompt, ["f"])
    assert code is not None
    names: dict[str, Callable[..., object]] = {}
    exec(code, names)
    assert names["f"](*arguments) == value
    assert names["f"](object()) is None


def test_examples_of_input_and_output_become_a_program() -> None:
    code = visible_cases("Input:\n1 2\nOutput:\n3\n\nInput:\n4 4\nOutput:\n8\n", [])
    assert code is not None and "'1 2': '3'" in code and "'4 4': '8'" in code
    assert visible_cases("Add two numbers.", []) is None and visible_cases("Add two numbers.", ["f"]) is None


@given(st.integers(), st.text(max_size=80), st.integers(1, 9))
def test_a_random_policy_repeats_itself_by_its_seed(seed: int, prompt: str, turns: int) -> None:
    first, second = (random_script(seen(prompt, max_turns=turns), Random(seed)) for _ in range(2))
    assert first == second and first[-1].answer is not None and len(first) <= max(turns, 3)
