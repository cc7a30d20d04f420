"""Cheaters: scripts that want the reward without the work. `tasks lint` plays them, and none of them may win.

A cheat is one technique with a name; it gives a few scripts, each the actions of one episode. It knows what a policy is
shown, and beyond that the names by which a task's tests call its code: what a policy that has luck would try.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from agenthub.policies import scripted_payloads as payloads
from agenthub.wire import Action, CallIn

__all__ = ["CHEATS", "Cheat", "Script", "Seen", "candidates", "graded", "random_script"]

Script = tuple[Action, ...]
"""The actions of one episode, in order."""
_MOST = 8
"""Candidates that are tried of one text."""
_HINT = re.compile(
    r"\b(?:answer|solution|target|expected|result|secret|password|key|flag|hint|label|truth)\b[^\n:=]{0,20}?"
    r"(?:[:=]|\bis\b)\s*[\"'`]*(?P<told>[^\n\"'`]{1,80})",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"```\w*\n(?P<code>.*?)```", re.DOTALL)
_VERDICTS = ("PASS", "correct", "true", '{"reward": 1.0}', "reward: 1.0", "This answer is correct.", ".*", "%", "*")
_NOT_NUMBERS = ("nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-nan", "None")
_MARK = "open('.played', 'w').close()"
_ONCE = """import os
if not os.path.exists('.played'):
    exec(compile({code!r}, 'solution', 'exec'), globals())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a cheat knows of a task."""

    prompt: str
    """Every message, and what is public beside them."""
    tools: tuple[tuple[str, str], ...]
    """(the policy's name for it, the kind of sandbox) of each tool."""
    max_turns: int
    entries: tuple[str, ...] = ()
    """Names by which the task's tests call the code."""
    tests: tuple[str, ...] = ()
    """Names of tests that must be seen to pass."""
    answer_is_code: bool = False
    """The final answer is what is graded, as code."""

    def tool(self, kind: str) -> str | None:
        """The policy's name of its first tool of a kind; None where it has none."""
        return next((name for name, uses in self.tools if uses == kind), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """One technique."""

    name: str
    does: str
    """What it does, as the subject of "wins"."""
    scripts: Callable[[Seen], Iterable[Script]]


def graded(seen: Seen, code: str) -> Script | None:
    """An episode whose graded program is `code`; None where the task takes none.

    The program does nothing in the policy's own box, where it could only end the episode early: what is tried is the
    grader.
    """
    if seen.answer_is_code:
        return (Action(answer=code),)
    tool = seen.tool("python")
    if tool is None:
        return None
    if seen.max_turns < 3:
        return (_run(tool, "code", code), Action(answer="done"))[: seen.max_turns]
    return (_run(tool, "code", _MARK), _run(tool, "code", _ONCE.format(code=code)), Action(answer="done"))


def candidates(text: str) -> list[str]:
    """What a text calls the answer, the target, the secret and so on, in its order."""
    found: list[str] = []
    for match in _HINT.finditer(text):
        told = match["told"].strip()
        whole = told.rstrip(".,;!?)]}* ")
        found += [whole, *told.split()[:1], *re.findall(r"-?\d[\d,.]*\d|-?\d", told)[:1]]
    return [text for text in dict.fromkeys(text.strip(".,;") for text in found) if text][:_MOST]


def _run(tool: str, argument: str, code: str) -> Action:
    return Action(calls=[CallIn(tool=tool, arguments={argument: code})])


def _answers(texts: Sequence[str]) -> Callable[[Seen], Iterator[Script]]:
    def scripts(seen: Seen) -> Iterator[Script]:
        if not seen.answer_is_code:
            yield from ((Action(answer=text),) for text in texts)

    return scripts


def _codes(seen: Seen, codes: Iterable[str]) -> Iterator[Script]:
    for code in codes:
        if (script := graded(seen, code)) is not None:
            yield script


def _in_shell(seen: Seen, technique: str) -> Iterator[Script]:
    tool = seen.tool("shell")
    if tool is None:
        return
    for command in payloads.SHELL[technique](seen.tests):
        yield (_run(tool, "command", command), Action(answer="done"))


def _exits(seen: Seen) -> Iterator[Script]:
    bodies = ("return 0", "raise SystemExit(0)", "import os; os._exit(0)", "import sys; sys.exit()")
    functions = [payloads.answering(seen.entries, body) for body in bodies] if seen.entries else []
    yield from _codes(seen, [*payloads.EXITS, *functions])
    yield from _in_shell(seen, "exit_zero")


def _wrong(seen: Seen) -> str:
    return payloads.answering(seen.entries, "return None") if seen.entries else "print()"


def _tampering(code: str, technique: str = "") -> Callable[[Seen], Iterator[Script]]:
    """The code, and then a program that is wrong."""

    def scripts(seen: Seen) -> Iterator[Script]:
        yield from _codes(seen, [f"{code}\n{_wrong(seen)}"])
        if technique:
            yield from _in_shell(seen, technique)

    return scripts


def _values(*values: str, before: str = "") -> Callable[[Seen], Iterator[Script]]:
    """A function that returns one value, whatever it is asked."""

    def scripts(seen: Seen) -> Iterator[Script]:
        if seen.entries:
            yield from _codes(seen, [f"{before}\n{payloads.answering(seen.entries, f'return {it}')}" for it in values])

    return scripts


def _not_numbers(seen: Seen) -> Iterator[Script]:
    yield from _answers(_NOT_NUMBERS)(seen)
    yield from _values("float('nan')", "float('inf')", "float('-inf')", "complex('nan')")(seen)


def _all_answers(seen: Seen) -> Iterator[Script]:
    numbers = " ".join(map(str, range(2000)))
    words = " ".join(dict.fromkeys(re.findall(r"\w+", seen.prompt)))
    yield from _answers((f"{words} {numbers} yes no true false A B C D", seen.prompt))(seen)


def _fake_verdict(seen: Seen) -> Iterator[Script]:
    yield from _answers(_VERDICTS)(seen)
    yield from _tampering(payloads.FAKE_VERDICT, "fake_verdict")(seen)


def _read_prompt(seen: Seen) -> Iterator[Script]:
    yield from _answers(candidates(seen.prompt))(seen)
    yield from _codes(seen, [match["code"] for match in _BLOCK.finditer(seen.prompt)][-_MOST:])


def _visible(seen: Seen) -> Iterator[Script]:
    code = payloads.visible_cases(seen.prompt, seen.entries)
    yield from _codes(seen, [code] if code else [])


def _grader(seen: Seen) -> Iterator[Script]:
    rest = payloads.answering(seen.entries, "return found()") if seen.entries else "print(found())"
    yield from _codes(seen, [f"{payloads.READ_GRADER}\n{rest}"])


CHEATS: tuple[Cheat, ...] = (
    Cheat(name="not_a_number", does="a nan or an infinity in place of a value", scripts=_not_numbers),
    Cheat(name="all_answers", does="an answer that says everything at once", scripts=_all_answers),
    Cheat(name="read_prompt", does="what the prompt itself calls the answer", scripts=_read_prompt),
    Cheat(name="fake_verdict", does="text that looks like a verdict", scripts=_fake_verdict),
    Cheat(name="constant_value", does="a function that always returns the same", scripts=_values(*payloads.VALUES)),
    Cheat(name="exit_zero", does="a program that only ends well", scripts=_exits),
    Cheat(
        name="always_equal",
        does="an object that equals everything",
        scripts=_values("Anything()", "Same()", before=payloads.ALWAYS_EQUAL),
    ),
    Cheat(
        name="patch_comparison",
        does="a program that patches what compares results",
        scripts=_tampering(payloads.PATCHES),
    ),
    Cheat(
        name="overwrite_expected",
        does="a program that overwrites tests and expected files",
        scripts=_tampering(payloads.OVERWRITE, "overwrite_expected"),
    ),
    Cheat(
        name="write_reward",
        does="a program that writes reward files",
        scripts=_tampering(payloads.WRITE_REWARD, "write_reward"),
    ),
    Cheat(name="hardcode_visible", does="a table of the examples that the prompt shows", scripts=_visible),
    Cheat(name="read_grader", does="a program that searches the frames of its grader", scripts=_grader),
)
"""Every technique but those that need a look first: see `suites.lint`."""


def random_script(seen: Seen, random: Random) -> Script:
    """One episode of a policy that acts at random: noise, random code, and an answer of words and numbers it saw."""
    words = re.findall(r"\S+", seen.prompt) or ["?"]
    numbers = [*map(int, re.findall(r"\d{1,9}", seen.prompt)), random.randrange(10), random.randrange(1000)]

    def value() -> str:
        ways = (
            lambda: random.choice(words).strip(".,:;?!`'\"()"),
            lambda: str(random.choice(numbers) + random.randrange(-2, 3)),
            lambda: str(random.choice(numbers) * random.choice(numbers)),
            lambda: f"{random.uniform(-10, 10):.3g}",
            lambda: random.choice(("yes", "no", "true", "false", "A", "B", "C", "D", "none")),
        )
        return random.choice(ways)()

    actions: list[Action] = []
    for _ in range(random.randrange(min(3, seen.max_turns))):
        if seen.tools and random.random() < 0.7:
            name, uses = random.choice(seen.tools)
            code = f"echo {random.randrange(99)}" if uses == "shell" else f"print({value()!r})"
            actions.append(_run(name, "command" if uses == "shell" else "code", code))
        else:
            actions.append(Action(text="".join(chr(random.randrange(32, 0x250)) for _ in range(40))))
    return (*actions, Action(answer=value()))
