"""Short answers as question-answering benchmarks compare them: SQuAD's normalisation, exact match, F1, cover match."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["covers", "exact_match", "f1", "normalised"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation and the articles a, an, the, white space as single spaces.

    Source: Rajpurkar et al. 2016, `evaluate-v1.1.py`: lower, punctuation, articles, spaces, in this order.
    """
    bare = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(given: str, accepted: Sequence[str]) -> float:
    """1 where the normalised answer equals an accepted one; 0 for an answer of which nothing is left."""
    answer = normalised(given)
    return float(bool(answer) and any(answer == normalised(expected) for expected in accepted))


def f1(given: str, accepted: Sequence[str]) -> float:
    """The best harmonic mean of precision and recall over words, 2 p r / (p + r), by number of occurrences."""
    return max((_f1(normalised(given).split(), normalised(expected).split()) for expected in accepted), default=0.0)


def covers(given: str, accepted: Sequence[str]) -> float:
    """1 where the words of an accepted answer stand in the answer, one after the other."""
    words = normalised(given).split()
    return float(any(_within(normalised(expected).split(), words) for expected in accepted))


def _f1(given: Sequence[str], expected: Sequence[str]) -> float:
    shared = sum((Counter(given) & Counter(expected)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(given), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def _within(part: Sequence[str], words: Sequence[str]) -> bool:
    size = len(part)
    return size > 0 and any(list(words[at : at + size]) == list(part) for at in range(len(words) - size + 1))
