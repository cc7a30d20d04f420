"""What is left out while ranking changes nothing: the same hits as by scoring every passage that has a word."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import tantivy
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.sandboxes.search.builder import SEGMENTS, analyzer
from agenthub.sandboxes.search.ranking import Ranked, Ranker
from tests.search.corpora import jsonl, made

WORDS = [f"w{'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}" for n in range(60)]
Pair = tuple[Ranker, Ranker]


@pytest.fixture(scope="module")
def rankers(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One that leaves out what it can and one that scores everything, over words in Zipf's proportions."""
    folder, rng = tmp_path_factory.mktemp("ranking"), random.Random(3)
    weights = [1 / rank for rank in range(1, len(WORDS) + 1)]
    texts = [" ".join(rng.choices(WORDS, weights, k=rng.randint(3, 40))) for _ in range(2500)]
    rows = [{"id": f"d{number:04d}", "text": text} for number, text in enumerate(texts)]
    made(jsonl(folder / "first.jsonl", rows[:1500]), folder / "index", prune=False)
    made(jsonl(folder / "second.jsonl", [*rows[1000:], {"id": "d0000", "text": "waa"}]), folder / "index", prune=False)
    index = tantivy.Index.open(str(folder / "index" / SEGMENTS))
    index.register_tokenizer("hub", analyzer())
    searcher = index.searcher()
    return Ranker(index.schema, searcher, analyzer(), few=0), Ranker(index.schema, searcher, analyzer(), few=10**9)


def shown(ranker: Ranker, hits: Sequence[Ranked], k: int) -> list[tuple[float, str]]:
    """The first k, as a corpus orders them."""
    rows = [(score, ranker.searcher.doc(place).to_dict()["doc"][0]) for score, place in hits]
    return sorted(rows, key=lambda row: (-row[0], row[1]))[:k]


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(st.sampled_from([*WORDS, "absent"]), min_size=1, max_size=9), k=st.sampled_from([1, 2, 3, 10, 100])
)
def test_the_best_are_those_of_scoring_every_passage(rankers: Pair, words: list[str], k: int) -> None:
    ours, every = rankers
    found = shown(ours, ours.best(" ".join(words), k), k)
    wanted = shown(every, every.best(" ".join(words), k), k)
    assert [id for _, id in found] == [id for _, id in wanted]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in wanted], rel=1e-4)


def test_common_words_alone_are_found_too(rankers: Pair) -> None:
    ours, every = rankers
    assert shown(ours, ours.best("waa wab", 5), 5) == shown(every, every.best("waa wab", 5), 5)
    assert ours.best("nothing of this stands anywhere", 5) == []
