"""The imperfect demonstrations that the tiny policy is warmed up on.

A demonstrator plays arithmetic questions of the part `train` with really executed code. It guesses without the tool,
says nothing of use, writes broken code and confuses operators, each with odds of its own, and it tries again after an
error or an unreadable output. What it copies it copies right: that is what reinforcement cannot teach quickly.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from agenthub.generators.arithmetic import Problem, problems
from agenthub.records import Observation, Text

__all__ = ["Demonstration", "Habits", "clean", "demonstrations", "execute"]

_OPERATORS = re.compile(r"\*\*|[-+*%]")
_CONFUSED = {"**": "*", "+": "*", "*": "+", "-": "+", "%": "//"}
_IDLE = ("Hm.", "Let me see.", "I am not sure.", "It is {n}.", "I think it is {n}.", "The answer is {n}.")
_FILES = ("<turn>", "<cell>", "<string>", "turn.py", "<code>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How often the demonstrator does what."""

    idle: float = 0.22
    """A first turn with neither code nor answer."""
    guess: float = 0.12
    """A first turn that answers without the tool."""
    broken: float = 0.15
    """Code that fails or prints nothing."""
    roundabout: float = 0.6
    """Code that goes through a variable; the demonstrator is careless in it."""
    wrong_roundabout: float = 0.66
    """A wrong operator in roundabout code."""
    wrong_direct: float = 0.08
    """A wrong operator in a single print."""
    retry: float = 0.7
    """Another attempt after an error or no output; otherwise idle or a guess."""
    read: float = 0.95
    """An answer that is what the output shows; otherwise idle."""
    max_turns: int = 4


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode: the question, and turns with what they showed. The last turn has no observation."""

    question: str
    turns: tuple[tuple[str, Observation | None], ...]


def demonstrations(seed: int, count: int, habits: Habits) -> Iterator[Demonstration]:
    """Imperfect episodes on `count` questions drawn by `seed`, none of the part `eval`."""
    rng = random.Random(seed)
    for problem in problems(seed, count, part="train"):
        yield Demonstration(problem.question, tuple(_play(problem, habits, rng)))


def clean(seed: int, count: int) -> Iterator[Demonstration]:
    """Faultless episodes of two turns: they teach the copying."""
    habits = Habits(idle=0, guess=0, broken=0, roundabout=0.3, wrong_roundabout=0, wrong_direct=0, read=1)
    return demonstrations(seed, count, habits)


def execute(code: str, rng: random.Random) -> Observation:
    """Run the demonstrator's own code here, and show it as a sandbox may: the whole traceback or its last line."""
    output = io.StringIO()
    file = rng.choice(_FILES)
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(code, file, "exec"), {})
    except (ArithmeticError, AttributeError, LookupError, NameError, SyntaxError, TypeError, ValueError) as error:
        error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
        lines = traceback.format_exception(error)
        text = "".join(lines) if rng.random() < 0.3 else lines[-1]
        return Observation(call_id="0.0", parts=(Text(text=text, channel="error"),), failed=True)
    return Observation(call_id="0.0", parts=(Text(text=output.getvalue()),))


def _play(problem: Problem, habits: Habits, rng: random.Random) -> Iterator[tuple[str, Observation | None]]:
    luck = rng.random()
    if luck < habits.idle + habits.guess:
        yield _idle(rng) if luck < habits.idle else _guess(problem, rng), None
        return
    for left in reversed(range(habits.max_turns)):
        code = _program(problem, habits, rng)
        shown = execute(code, rng)
        yield f"```python\n{code}\n```", shown if left else None
        if not left:
            return
        if shown.text.strip() and not shown.failed:
            yield f"\\boxed{{{shown.text.strip()}}}" if rng.random() < habits.read else _idle(rng), None
            return
        if rng.random() >= habits.retry:
            yield rng.choice((_idle(rng), _guess(problem, rng))), None
            return


def _program(problem: Problem, habits: Habits, rng: random.Random) -> str:
    roundabout = rng.random() < habits.roundabout
    wrong = rng.random() < (habits.wrong_roundabout if roundabout else habits.wrong_direct)
    expression = _confused(problem.expression, rng) if wrong else problem.expression
    if rng.random() < habits.broken:
        return rng.choice((f"print({expression}", f"prnt({expression})", f"x={expression}", f"print({expression}))"))
    return f"x={expression}\nprint(x)" if roundabout else f"print({expression})"


def _confused(expression: str, rng: random.Random) -> str:
    """The expression with one operator taken for another; a range without its last number."""
    if "range" in expression:
        return expression.replace("+1", "")
    found = rng.choice(list(_OPERATORS.finditer(expression)))
    return expression[: found.start()] + _CONFUSED[found.group()] + expression[found.end() :]


def _number(problem: Problem, rng: random.Random) -> str:
    digits = max(3, len(str(abs(problem.answer))) + rng.choice((-1, 0, 0, 1)))
    return str(rng.randint(10 ** (digits - 1), 10**digits - 1))


def _guess(problem: Problem, rng: random.Random) -> str:
    return f"\\boxed{{{_number(problem, rng)}}}"


def _idle(rng: random.Random) -> str:
    return rng.choice(_IDLE).format(n=rng.randint(100, 9999))
