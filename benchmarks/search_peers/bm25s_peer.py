"""bm25s on the passages and queries of benchmarks/search.py: runs in the environment of tests/peers/bm25s.txt.

    python bm25s_peer.py CORPUS.jsonl QUERIES.jsonl

Prints one JSON object: seconds to index, peak memory, each query's milliseconds, and the ids of its best ten. Its own
tokeniser with English stop words and stemmer, its numba backend, queries one by one: as its documentation recommends.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import bm25s
import Stemmer


def main(corpus: str, queries: str) -> None:
    """Index, ask, print."""
    started = time.perf_counter()
    ids, texts = [], []
    with open(corpus, encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            ids.append(row["id"])
            texts.append(f"{row['title']}\n{row['text']}")
    stemmer = Stemmer.Stemmer("english")
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    retriever = bm25s.BM25(backend="numba")
    retriever.index(tokens, show_progress=False)
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open(queries, encoding="utf-8") as stream:
        asked = [json.loads(line)["query"] for line in stream]
    retrieve(retriever, stemmer, asked[0])  # compiles
    times_ms, found = [], []
    for query in asked:
        started = time.perf_counter()
        best = retrieve(retriever, stemmer, query)
        times_ms.append((time.perf_counter() - started) * 1e3)
        found.append([ids[index] for index in best])
    print(json.dumps({"index_s": seconds, "peak_mb": peak_mb, "times_ms": times_ms, "found": found}))


def retrieve(retriever: bm25s.BM25, stemmer: Stemmer.Stemmer, query: str) -> list[int]:
    """Indices of the ten best passages."""
    tokens = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
    documents, _ = retriever.retrieve(tokens, k=10, show_progress=False, n_threads=1)
    return [int(index) for index in documents[0]]


if __name__ == "__main__":
    main(*sys.argv[1:])
