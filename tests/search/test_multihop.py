"""The invented encyclopedia, its questions, and the suites over it: in process and over HTTP."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from agenthub.client import Hub
from agenthub.errors import UserError
from agenthub.generators.encyclopedia import RELATIONS, articles, world
from agenthub.generators.multihop import follow, generate, questions
from agenthub.generators.parts import part_of
from agenthub.rewards.search import PLANTED
from agenthub.sandboxes.search.corpus import Corpus
from agenthub.sandboxes.search.places import generated
from agenthub.suites.load import default_folder, load_suite
from agenthub.suites.task import Suite, Task
from agenthub.wire import Action
from tests.served import served

SUITE = default_folder() / "search" / "multihop.yaml"
WORLD = world(5, 1000)


def test_an_encyclopedia_is_the_same_for_the_same_seed_and_links_lead_somewhere() -> None:
    one, two = list(articles({"seed": 5, "articles": 1000})), list(articles({"seed": 5, "articles": 1000}))
    assert one == two != list(articles({"seed": 6, "articles": 1000}))
    ids = {row["id"] for row in one}
    assert len(ids) == 1000 == len({row["title"] for row in one})
    assert all(target in ids and words in row["text"] for row in one for words, target in row["links"])


def test_the_suites_encyclopedia_has_5000_articles_and_more() -> None:
    suite = load_suite(SUITE)
    config = suite.tasks[0].tools[0].spec.params["corpus_config"]
    assert config["articles"] >= 5000 and len(suite.split("train")) >= 1000


def test_every_fact_stands_in_its_article_once() -> None:
    for article in itertools.islice(WORLD.articles.values(), 300):
        for name, target in article.facts.items():
            sentence = RELATIONS[name].sentence.format(a=article.title, b=WORLD.articles[target].title)
            assert article.text.count(sentence) == 1


def test_an_answer_is_unique_and_the_start_does_not_name_it() -> None:
    made = list(itertools.islice(questions(WORLD, 3, (2, 3, 4)), 500))
    assert len({question.text for question in made}) == 500
    for question in made:
        assert follow(WORLD, question.start, question.steps) == {question.path[-1]}
        assert WORLD.articles[question.path[-1]].title == question.answer
        assert question.answer not in WORLD.articles[question.start].text
        assert question.answer not in question.text and len(set(question.path)) == len(question.steps) + 1
    assert {len(question.steps) for question in made} == {2, 3, 4}
    assert any(step.startswith("-") for question in made for step in question.steps)


def test_the_parts_share_no_question() -> None:
    parts = {part: itertools.islice(questions(WORLD, 3, (2,), part), 100) for part in ("train", "eval")}
    assert all(part_of(question.text) == part for part, made in parts.items() for question in made)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"hopps": [2]}, "hops"),
        ({"hops": [0]}, "1 to 6"),
        ({"hops": []}, "1 to 6"),
        ({"part": "test"}, "part"),
        ({"corpus": {"articles": 5}}, "articles"),
        ({"corpus": {"article": 500}}, "articles"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: dict[str, object], why: str) -> None:
    with pytest.raises(UserError, match=why):
        next(generate(config, 1, 1))


def test_the_oracles_queries_find_the_articles_on_the_way() -> None:
    config = {"seed": 5, "articles": 1000}
    corpus = Corpus(generated("encyclopedia", config))
    wanted = found = 0
    for question in itertools.islice(questions(WORLD, 7, (2, 3, 4)), 200):
        for query, step, here, there in zip(
            question.queries, question.steps, question.path, question.path[1:], strict=False
        ):
            gold = there if step.startswith("-") else here
            wanted += 1
            found += gold in [hit.id for hit in corpus.search(query, 10)]
    assert found >= 0.99 * wanted


def spread(tasks: tuple[Task, ...], count: int) -> Iterator[Task]:
    return (tasks[index * len(tasks) // count] for index in range(count))


async def rewards(url: str, suite: Suite, count: int, *, noop: bool) -> list[float | None]:
    """The rewards of `count` episodes over HTTP."""
    slots = asyncio.Semaphore(32)

    async def one(hub: Hub, task: Task) -> float | None:
        texts = ("I do nothing.",) * task.limits.max_turns if noop else task.solution
        async with slots:
            (handle,) = await hub.create(suite.name, task=task.id)
            for text in texts:
                done = await handle.step(Action(text=text))
                if done.terminated or done.truncated:
                    break
            return None if done.reward is None else float(sum(done.rewards.values()))

    async with Hub(url) as hub:
        return list(await asyncio.gather(*(one(hub, task) for task in spread(suite.tasks, count))))


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_over_http_the_oracle_is_always_paid_and_an_idler_never(tmp_path: Path, count: int) -> None:
    suite = load_suite(SUITE)
    with served(SUITE, tmp_path) as url:
        assert asyncio.run(rewards(url, suite, count, noop=False)) == [1.0] * count
        assert asyncio.run(rewards(url, suite, count, noop=True)) == [0.0] * count


async def test_search_and_python_in_one_episode(tmp_path: Path) -> None:
    suite = load_suite(SUITE.with_name("multihop_cited.yaml"))
    task = suite.tasks[0]
    with served(SUITE.with_name("multihop_cited.yaml"), tmp_path) as url:
        async with Hub(url) as hub:
            (handle,) = await hub.create(suite.name, task=task.id)
            first = await handle.step(Action(text="<python>x = 'a' * 3\nprint(x)</python>"))
            assert "aaa" in first.observation["text"]
            found = await handle.step(Action(text=task.solution[0]))
            assert "outside text" in found.observation["text"] and found.rewards == {"search_cost": -0.01}
            again = await handle.step(Action(text="<python>print(x + 'b')</python>"))
            assert "aaab" in again.observation["text"]
            for text in task.solution[1:]:
                last = await handle.step(Action(text=text))
            assert last.rewards["outcome"] == 1.0


def test_planted_texts_are_there_and_each_asks_for_a_token_of_its_own() -> None:
    planted = [article for article in world(5, 1000, 100).articles.values() if article.planted]
    tokens = {article.planted for article in planted}
    assert len(planted) == 100 == len(tokens)
    assert all(article.planted in article.text for article in planted)
    import re

    assert all(re.fullmatch(PLANTED, token) for token in tokens)
