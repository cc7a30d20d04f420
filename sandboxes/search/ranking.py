"""Which passages fit a query best, over one commit of an index: exact BM25 that need not score every passage.

tantivy's collectors as its Python binding calls them score every passage that has any word of the query. `Ranker` asks
for less: a passage that has none of the rarer words cannot score above the sum of what the other words give at most
(MaxScore; Turtle and Flood 1995, Query evaluation: strategies and optimizations). Where the k-th best of the passages
with a rarer word lies above that sum, the others need not be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tantivy

__all__ = ["MAX_TERMS", "Ranked", "Ranker"]

Ranked = tuple[float, tantivy.DocAddress]
"""A score, rounded so that equal passages are equal, and where the passage is."""
MAX_TERMS = 64
_TIES = 16
"""Hits beyond the k-th that are looked at at once, for those that tie with it."""
_MOST_TIES = 4096
_FEW = 20_000
"""So many passages are scored sooner than thought about."""
_MOST_PEAKS = 100_000
_SLACK = 1.0001
"""More than the rounding of a score and of a sum can be."""
# Words that nearly every passage has cost time and change no order; a query of nothing else keeps them.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for from had has have he her his i if in into is it its no not of on or s she "
        "such that the their then there these they thi this to was were what when where which who whom whose will with",
    )
)


@dataclass(frozen=True, slots=True)
class _Term:
    word: str
    passages: int
    """That have it."""
    weight: int
    """How often the query has it."""
    query: tantivy.Query


class Ranker:
    """Queries over one searcher; may be used from several threads."""

    def __init__(
        self, schema: tantivy.Schema, searcher: tantivy.Searcher, analyzer: tantivy.TextAnalyzer, *, few: int = _FEW
    ) -> None:
        """
        Args:
            few: queries whose words stand in no more passages than this are answered by scoring all of them.
        """
        self._schema, self.searcher, self._analyzer, self._few = schema, searcher, analyzer, few
        self._peaks: dict[str, float] = {}

    def best(self, text: str, k: int) -> list[Ranked]:
        """The hits among which the `k` best are, whichever of those that tie for the last place come first.

        Hits that tie differ in `order`, the start of their ids, as far as that can tell them apart.
        """
        terms = self._terms(text)
        if not terms:
            return []
        limit = k + _TIES
        query, found = self._chosen(terms, k, limit)
        while True:
            hits = found if found is not None else self._hits(query, limit)
            complete = len(hits) < limit or hits[-1][0] < hits[k - 1][0]
            if complete or limit >= _MOST_TIES:
                return _first(self.searcher, hits, k)
            found, limit = None, limit * 4

    def _terms(self, text: str) -> list[_Term]:
        """The words of a query that the index has, the rarest first."""
        counts: dict[str, int] = {}
        for word in self._analyzer.analyze(text.encode("utf-8", "replace").decode()):
            counts[word] = counts.get(word, 0) + 1
        telling: Mapping[str, int] = {word: n for word, n in counts.items() if word not in _COMMON} or counts
        terms = []
        for word, count in list(telling.items())[:MAX_TERMS]:
            passages = self.searcher.doc_freq("body", word)
            if passages:
                query = tantivy.Query.term_query(self._schema, "body", word, "freq")
                query = tantivy.Query.boost_query(query, float(count)) if count > 1 else query
                terms.append(_Term(word, passages, count, query))
        return sorted(terms, key=lambda term: (term.passages, term.word))

    def _chosen(self, terms: Sequence[_Term], k: int, limit: int) -> tuple[tantivy.Query, list[Ranked] | None]:
        """A query that finds the best `limit`, as far as they stand no lower than the k-th; its hits, where known."""
        every = _any(terms)
        if sum(term.passages for term in terms) <= self._few:
            return every, None
        needed, passages = 0, 0
        while needed < len(terms) and passages < k:
            passages += terms[needed].passages
            needed += 1
        if needed == len(terms):
            return every, None
        query = _with(terms[:needed], terms[needed:])
        hits = self._hits(query, limit)
        sure = hits[k - 1][0] if len(hits) >= k else 0.0
        most = sum(self._peak(term) for term in terms[needed:])
        if most * _SLACK < sure:
            return query, hits
        while needed < len(terms) and most * _SLACK >= sure:
            most -= self._peak(terms[needed])
            needed += 1
        return (every if needed == len(terms) else _with(terms[:needed], terms[needed:])), None

    def _peak(self, term: _Term) -> float:
        """What the term gives to a passage at most."""
        known = self._peaks.get(term.word)
        if known is None:
            query = tantivy.Query.term_query(self._schema, "body", term.word, "freq")
            hits = self.searcher.search(query, 1, count=False).hits
            known = float(hits[0][0]) if hits else 0.0
            if len(self._peaks) >= _MOST_PEAKS:
                self._peaks.clear()
            self._peaks[term.word] = known
        return known * term.weight

    def _hits(self, query: tantivy.Query, limit: int) -> list[Ranked]:
        """Hits with 17 bits of each score, five digits: sums of the same terms in another order are the same."""
        hits = self.searcher.search(query, limit, count=False).hits
        bits = np.array([score for score, _ in hits], np.float32).view(np.uint32)
        scores = ((bits + np.uint32(64)) & np.uint32(0xFFFFFF80)).view(np.float32).tolist()
        return [(score, place) for score, (_, place) in zip(scores, hits, strict=True)]


def _any(terms: Sequence[_Term]) -> tantivy.Query:
    if len(terms) == 1:
        return terms[0].query
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, term.query) for term in terms])


def _with(needed: Sequence[_Term], others: Sequence[_Term]) -> tantivy.Query:
    """Passages with one of the needed terms; the others add to their scores. Nested, for each is then skipped through
    on its own: side by side, tantivy would score every passage that has any of them."""
    query = _any(needed)
    for term in others:
        query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Should, term.query)])
    return query


def _first(searcher: tantivy.Searcher, hits: list[Ranked], k: int) -> list[Ranked]:
    """The hits among which the first k are: by score, then by the start of the id, whole ids aside."""
    if len(hits) <= k or hits[k][0] < hits[k - 1][0]:
        return hits[:k]
    orders = searcher.fast_field_values("order", [place for _, place in hits])
    ranked = sorted((-score, order or 0, n) for n, ((score, _), order) in enumerate(zip(hits, orders, strict=True)))
    last = ranked[k - 1][:2]
    return [hits[number] for score, order, number in ranked if (score, order) <= last]
