"""Our arithmetic: short questions whose answers a blind guess rarely meets, and which one line of Python computes.

The questions are a few characters long, so that the embedded byte-level policy can read them. Every kind can be
answered by copying the question's numbers into an expression. A question belongs to the part `eval` or `train` by its
own text alone, whatever the seed: what one seed holds out, no other seed trains on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.generators.parts import part_of

__all__ = ["KINDS", "Problem", "generate", "problems", "solution"]

_SETTINGS = ("calls", "kinds", "part")
_TRIES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question."""

    question: str
    expression: str
    """Python whose value is the answer; holds the question's numbers as they stand there."""
    answer: int
    """At least 100 in absolute value."""
    kind: str
    """A key of KINDS."""


def _pair(rng: random.Random) -> tuple[str, str]:
    text = f"{rng.randint(2, 99)}{rng.choice('+**')}{rng.randint(2, 99)}"
    return text, text


def _chain(rng: random.Random) -> tuple[str, str]:
    first, second = rng.choice(("*+", "*-", "+*", "-*", "**", "++"))
    text = f"{rng.randint(2, 99)}{first} {rng.randint(2, 99)}{second} {rng.randint(2, 99)}".replace(" ", "")
    return text, text


def _remainder(rng: random.Random) -> tuple[str, str]:
    text = f"{rng.randint(1000, 9999)}%{rng.randint(201, 999)}"
    return text, text


def _range(rng: random.Random) -> tuple[str, str]:
    low = rng.randint(2, 89)
    high = rng.randint(low + 3, 99)
    return f"sum {low} to {high}", f"sum(range({low},{high}+1))"


def _square(rng: random.Random) -> tuple[str, str]:
    base = rng.randint(11, 999)
    return f"square {base}", f"{base}**2"


KINDS: Mapping[str, Callable[[random.Random], tuple[str, str]]] = {
    "pair": _pair,
    "chain": _chain,
    "remainder": _remainder,
    "range": _range,
    "square": _square,
}


def problems(seed: int, count: int, kinds: Sequence[str] | None = None, part: str | None = None) -> list[Problem]:
    """`count` problems drawn by `seed`; a question may come twice.

    Args:
        kinds: drawn from with equal odds; None is every kind.
        part: only questions of the part `train` or `eval`; None is both.

    Raises:
        UnknownName: a kind or the part is not known.
    """
    stream = _stream(seed, kinds, part)
    return [next(stream) for _ in range(count)]


def solution(problem: Problem) -> tuple[str, str]:
    """The oracle's two turns: the tool call, then the answer."""
    return f"```python\nprint({problem.expression})\n```", f"\\boxed{{{problem.answer}}}"


def generate(config: Mapping[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Task rows with distinct questions, for a suite's source.

    Args:
        config: `kinds` (list of names), `part` (`train` or `eval`) and `calls` (how often the oracle asks its tool, 1:
            more for one that fails at first), all optional.

    Raises:
        UserError: a key of `config` is not known, or there are not `count` distinct questions.
    """
    for key in config:
        if key not in _SETTINGS:
            raise UnknownName("setting of the arithmetic generator", str(key), _SETTINGS)
    calls = config.get("calls", 1)
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1:
        raise UserError(f"generator arithmetic: calls is {calls!r}; expected a whole number from 1")
    stream = _stream(seed, config.get("kinds"), config.get("part"))
    seen: set[str] = set()
    for index in range(count):
        problem = next((one for one, _ in zip(stream, range(_TRIES), strict=False) if one.question not in seen), None)
        if problem is None:
            raise UserError(f"generator arithmetic has only {index} distinct questions here; {count} were asked for")
        seen.add(problem.question)
        call, answer = solution(problem)
        yield {
            "id": f"{index:05d}",
            "prompt": {"user": problem.question},
            "target": {"answer": problem.answer},
            "solution": {"turns": [*([call] * calls), answer]},
            "metadata": {"kind": problem.kind, "difficulty": len(str(abs(problem.answer))) - 2},
        }


def _stream(seed: int, kinds: Sequence[str] | None, part: str | None) -> Iterator[Problem]:
    chosen = list(KINDS) if kinds is None else list(kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise UnknownName("kind of arithmetic", str(kind), KINDS)
    if not chosen:
        raise UserError("generator arithmetic: kinds is empty")
    if part not in (None, "train", "eval"):
        raise UnknownName("part of the arithmetic", str(part), ("train", "eval"))
    return _draw(random.Random(seed), chosen, part)


def _draw(rng: random.Random, kinds: Sequence[str], part: str | None) -> Iterator[Problem]:
    while True:
        kind = rng.choice(kinds)
        question, expression = KINDS[kind](rng)
        if part is not None and part_of(question) != part:
            continue
        # The expression is our own text of digits and operators.
        answer = int(eval(expression, {"__builtins__": {"sum": sum, "range": range}}))
        if abs(answer) >= 100:
            yield Problem(question=question, expression=expression, answer=answer, kind=kind)
