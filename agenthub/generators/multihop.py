"""Multi-hop questions over the invented encyclopedia, from its links: a start, a chain of relations, one answer.

A chain is walked over the graph of facts. A step forward has one value by construction; a step against a relation is
taken only where a single article states it, so the answer is unique. A question is dropped where a shorter way would
do: the start's article names the answer, or the chain meets an article twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.generators.encyclopedia import RELATIONS, World, settings, world
from agenthub.generators.parts import part_of

__all__ = ["NEEDS", "Question", "follow", "generate", "questions"]

NEEDS = ("tantivy",)
"""Packages without which a suite that uses this generator is listed as unavailable."""
_TRIES = 20_000
_KEYS = ("corpus", "hops", "open", "part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question and the way to its answer."""

    text: str
    start: str
    """Id of the article that the question names."""
    steps: tuple[str, ...]
    """Relations in order; `-name` is the relation against its direction."""
    path: tuple[str, ...]
    """Ids of the articles on the way, the start first and the answer last."""
    queries: tuple[str, ...]
    """What the oracle searches for at each step."""
    answer: str


def follow(where: World, start: str, steps: tuple[str, ...]) -> set[str]:
    """Every article that a chain leads to; one where the question is sound."""
    reached = {start}
    for step in steps:
        if step.startswith("-"):
            reached = {source for it in reached for source in where.inverse.get((step[1:], it), ())}
        else:
            reached = {facts[step] for it in reached if step in (facts := where.articles[it].facts)}
    return reached


def questions(where: World, seed: int, hops: tuple[int, ...], part: str | None = None) -> Iterator[Question]:
    """Distinct questions without end, or until `_TRIES` draws in a row give none that is new."""
    rng = random.Random(f"multihop/{seed}")
    starts, seen, misses = list(where.articles), set[str](), 0
    while misses < _TRIES:
        made = _draw(where, rng, rng.choice(starts), rng.choice(hops))
        if made is None or made.text in seen or (part is not None and part_of(made.text) != part):
            misses += 1
            continue
        misses = 0
        seen.add(made.text)
        yield made


def generate(config: Mapping[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Task rows, for a suite's source. The oracle searches once a step and then answers.

    Args:
        config: `corpus` (settings of the encyclopedia), `hops` (list, [2, 3, 4] where absent), `part` (`train` or
            `eval`), and `open: true` where the oracle opens the last article and cites it.

    Raises:
        UserError: a setting is wrong, or there are not `count` distinct questions.
    """
    for key in config:
        if key not in _KEYS:
            raise UnknownName("setting of the multihop generator", str(key), _KEYS)
    hops, part = config.get("hops", [2, 3, 4]), config.get("part")
    if not isinstance(hops, list) or not hops or not all(type(hop) is int and 1 <= hop <= 6 for hop in hops):
        raise UserError(f"generator multihop: hops is {hops!r}; expected a list of numbers from 1 to 6")
    if part not in (None, "train", "eval"):
        raise UnknownName("part of the questions", str(part), ("train", "eval"))
    where = world(*settings(config.get("corpus", {})))
    stream = questions(where, seed, tuple(hops), part)
    for index in range(count):
        question = next(stream, None)
        if question is None:
            raise UserError(f"generator multihop has only {index} distinct questions here; {count} were asked for")
        yield _row(question, index, cite=bool(config.get("open", False)))


def _row(question: Question, index: int, *, cite: bool) -> dict[str, Any]:
    turns = [f"<search> {query} </search>" for query in question.queries]
    # An article that states the last step's fact: the one before it, or the answer's own where the step goes back.
    last = question.path[-1 if question.steps[-1].startswith("-") else -2]
    if cite:
        turns.append(f"<open> {last} </open>")
    source = f"[[{last}]] " if cite else ""
    return {
        "id": f"{index:05d}",
        "prompt": {"user": question.text},
        "target": {"answer": question.answer},
        "solution": {"turns": [*turns, f"{source}<answer> {question.answer} </answer>"]},
        "metadata": {"kind": "multihop", "hops": len(question.steps), "steps": list(question.steps)},
    }


def _draw(where: World, rng: random.Random, start: str, hops: int) -> Question | None:
    path, steps, queries = [start], [], []
    phrase = where.articles[start].title
    for _ in range(hops):
        here = path[-1]
        choices = _choices(where, here)
        if not choices:
            return None
        step, there = rng.choice(choices)
        relation = RELATIONS[step.removeprefix("-")]
        title = where.articles[here].title
        phrase = relation.inverse.format(b=phrase) if step.startswith("-") else relation.phrase.format(a=phrase)
        queries.append(f"{relation.words} {title}" if step.startswith("-") else f"{title} {relation.words}")
        steps.append(step)
        path.append(there)
    answer = where.articles[path[-1]]
    if len(set(path)) < len(path) or (hops > 1 and answer.title in where.articles[start].text):
        return None
    text = f"What is the name of {phrase}?"
    return Question(
        text=text, start=start, steps=tuple(steps), path=tuple(path), queries=tuple(queries), answer=answer.title
    )


def _choices(where: World, here: str) -> list[tuple[str, str]]:
    """(step, where it leads) of each step that has one value."""
    forward = list(where.articles[here].facts.items())
    kind = where.articles[here].kind
    back = []
    for name, relation in RELATIONS.items():
        sources = where.inverse.get((name, here), ()) if relation.target == kind and relation.inverse else ()
        if len(sources) == 1:
            back.append((f"-{name}", sources[0]))
    return forward + back
