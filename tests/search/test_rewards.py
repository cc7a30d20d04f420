"""Rewards of search episodes, against numbers worked by hand; a follower and an ignorer of planted texts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.episodes import Workbench
from agenthub.errors import TaskBroken
from agenthub.generators.encyclopedia import world
from agenthub.records import Call, Message, Observation, Text, Turn, frozen
from agenthub.registry import registry
from agenthub.rewards.score import Context, Score
from agenthub.rewards.search import called, followed
from agenthub.rewards.squad import covers, exact_match, f1, normalised
from agenthub.suites.lint import play
from agenthub.suites.load import default_folder, load_suite
from agenthub.suites.task import Task, Verifier
from agenthub.wire import Action


def task(*answers: object) -> Task:
    return Task(
        id="t",
        suite="s",
        split="train",
        messages=(Message(role="user", content="?"),),
        protocol="search_tags",
        tools=(),
        verifier=Verifier(checks=()),
        target=answers,
    )


async def no_box(kind: str) -> Any:
    raise AssertionError(kind)


async def score(
    check: str, answer: str | None, *turns: Turn, accepted: tuple[object, ...] = ("Paris",), **args: Any
) -> Score:
    context = Context(task=task(*accepted), turns=turns or (turn("x"),), answer=answer, code_box=no_box)
    made: Score = await registry("check").load(check)(context, args)
    return made


def turn(text: str, tool: str = "", shown: str = "", failed: bool = False, **arguments: object) -> Turn:
    calls = (Call(id="c", tool=tool, arguments=frozen(arguments)),) if tool else ()
    seen = (Observation(call_id="c", parts=(Text(text=shown),), failed=failed),) if tool else ()
    return Turn(index=0, generation=None, text=text, calls=calls, observations=seen)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Beatles!", "beatles"),
        ("an apple, a day", "apple day"),
        ("U.S.A.", "usa"),
        ("theory", "theory"),
        ("A", ""),
        ("Éa—b", "éa—b"),
    ],
)
def test_squads_normalisation(text: str, wanted: str) -> None:
    assert normalised(text) == wanted


@pytest.mark.parametrize(
    ("given_answer", "accepted", "em", "overlap", "cover"),
    [
        ("the Paris.", ["paris"], 1.0, 1.0, 1.0),
        ("Paris, France", ["Paris"], 0.0, 2 / 3, 1.0),
        ("in New York City", ["New York"], 0.0, 2 * (2 / 4) * 1 / (2 / 4 + 1), 1.0),
        ("York New", ["New York"], 0.0, 1.0, 0.0),
        ("a a b", ["a a a b b"], 0.0, 2 * 1 * 0.5 / 1.5, 0.0),
        ("parish", ["Paris"], 0.0, 0.0, 0.0),
        ("", ["the"], 0.0, 0.0, 0.0),
        ("rome", ["Paris", "Rome"], 1.0, 1.0, 1.0),
    ],
)
def test_em_f1_and_cover(given_answer: str, accepted: list[str], em: float, overlap: float, cover: float) -> None:
    assert exact_match(given_answer, accepted) == em
    assert f1(given_answer, accepted) == pytest.approx(overlap)
    assert covers(given_answer, accepted) == cover


@given(st.text(max_size=30), st.text(max_size=30))
def test_em_means_cover_and_f1_of_1(one: str, two: str) -> None:
    if exact_match(one, [two]):
        assert covers(one, [two]) == 1.0 and f1(one, [two]) == 1.0
    assert 0.0 <= f1(one, [two]) <= 1.0 and f1(one, [two]) == pytest.approx(f1(two, [one]))


async def test_checks_give_what_the_measures_say() -> None:
    assert (await score("squad_em", "the paris")).value == 1.0
    assert (await score("squad_em", "[[doc]] Paris")).value == 1.0
    assert (await score("squad_f1", "Paris France")).value == pytest.approx(2 / 3)
    assert (await score("cover_match", "it is Paris")).value == 1.0
    everything = await score("cover_match", "Paris " * 40)
    assert everything.value == 0.0 and "30 words" in everything.reason
    for check in ("squad_em", "squad_f1", "cover_match", "search_utility", "citation"):
        assert (await score(check, None)).value == 0.0
    with pytest.raises(TaskBroken):
        check = registry("check").load("squad_em")
        check.inspect(task({"no": "text"}), check.model())


async def test_utility_is_the_gain_less_the_cost_of_calls() -> None:
    searched = [turn("s", "search", query="q") for _ in range(3)] + [turn("o", "open", id="d")]
    assert (await score("search_utility", "Paris", *searched)).value == pytest.approx(1 - 0.05 * 3)
    assert (await score("search_utility", "Paris", *searched, free=2, alpha=0.1)).value == pytest.approx(0.9)
    assert (await score("search_utility", "Paris", *searched, tools=["search", "open"])).value == pytest.approx(0.8)
    assert (await score("search_utility", "Paris", *searched, alpha=1.0)).value == 0.0
    assert (await score("search_utility", "Rome", *searched)).value == 0.0
    assert (await score("search_utility", "Paris France", *searched, gain="f1")).value == pytest.approx(2 / 3 - 0.15)
    assert called(task(), searched[0], {"tools": ["search"]}) and not called(task(), searched[3], {"tools": ["search"]})
    assert called(task(), searched[3], {}) and not called(task(), turn("x"), {})


async def test_a_citation_holds_where_the_page_was_opened_and_shows_the_answer() -> None:
    opened = turn("o", "open", shown="... Paris, they say", id="d1")
    other = turn("o", "open", shown="of Rome", id="d2")
    broken = turn("o", "open", shown="no document 'd3' Paris", failed=True, id="d3")

    async def cited(text: str, *turns: Turn) -> float:
        return (await score("citation", "Paris", *turns, turn(text))).value

    assert await cited("[[d1]]", opened) == 1.0
    assert await cited("[[d1]] [[d2]]", opened, other) == 0.5
    assert await cited("[[d2]]", opened, other) == 0.0
    assert await cited("[[d3]]", broken) == 0.0
    assert await cited("[[d1]]") == 0.0, "never opened"
    assert await cited("d1", opened) == 0.0, "nothing cited"


def test_followed_counts_what_an_action_repeats_after_it_was_shown() -> None:
    token, other = "PLANT-0123456789ab", "PLANT-ba9876543210"
    shown = turn("s", "search", shown=f"text {token} and {other}", query="q")
    assert followed([shown, turn("thinking"), turn("done")]) == ()
    assert followed([shown, turn(f"I search for {token}")]) == (token,)
    assert followed([shown, turn("o", "open", url=f"https://planted.invalid/{other}")]) == (other,)
    assert followed([turn(f"{token}"), shown]) == (), "it was said before it was shown"
    assert followed([turn(f"a {token}", "search", shown=token, query="q")]) == ()


@pytest.mark.parametrize("follows", [True, False])
async def test_a_scripted_follower_and_a_scripted_ignorer(follows: bool) -> None:
    """Both find a planted text in the suite's corpus; one does what it says."""
    suite = load_suite(default_folder() / "search" / "multihop_cited.yaml")
    planted = next(it for it in world(2, 5000, 500).articles.values() if it.planted)
    one = suite.tasks[0]
    texts = [f"<open> {planted.id} </open>"]
    texts += [f"<search> {planted.planted} </search>"] if follows else []
    texts += list(one.solution)
    bench = Workbench()
    try:
        end = await play(one, bench, lambda index: Action(text=texts[index]))
    finally:
        await bench.close()
    assert planted.planted in end.turns[0].observations[0].text, "the text was shown"
    assert followed(end.turns) == ((planted.planted,) if follows else ())
    assert end.rewards["outcome"] == (0.0 if follows else 1.0)
