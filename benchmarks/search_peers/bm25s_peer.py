"""bm25s on the passages and queries of benchmarks/search.py: runs in the environment of tests/peers/bm25s.txt.

    python bm25s_peer.py CORPUS.jsonl QUERIES.jsonl

Prints one JSON object: seconds to index, peak memory, the milliseconds of each query asked by one client and by 64 (as
benchmarks/search.py asks: tasks of one loop, calls in a thread a processor), and the ids of its best ten. Its own
tokeniser with English stop words and stemmer, its numba backend, one query a call: as its documentation recommends.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import bm25s
import Stemmer

CLIENTS = 64


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

    alone = []
    for query in asked:
        started = time.perf_counter()
        best = retrieve(retriever, stemmer, query)
        alone.append(((time.perf_counter() - started) * 1e3, best))
    together = asyncio.run(clients(asked, lambda query: retrieve(retriever, stemmer, query)))
    found = [[ids[index] for index in best] for _, best in alone]
    row = {"index_s": seconds, "peak_mb": peak_mb, "times_ms": [ms for ms, _ in alone]}
    print(json.dumps({**row, "times_64_ms": together, "found": found}))


async def clients(asked: Sequence[str], work: Callable[[str], list[int]]) -> list[float]:
    """Milliseconds of each query, taken in turn by `CLIENTS` tasks."""
    left, times, loop = iter(asked), list[float](), asyncio.get_running_loop()
    threads = ThreadPoolExecutor(os.cpu_count())

    async def one() -> None:
        for query in left:
            started = time.perf_counter()
            await loop.run_in_executor(threads, work, query)
            times.append((time.perf_counter() - started) * 1e3)

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    threads.shutdown()
    return times


def retrieve(retriever: bm25s.BM25, stemmer: Stemmer.Stemmer, query: str) -> list[int]:
    """Indices of the ten best passages."""
    tokens = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
    documents, _ = retriever.retrieve(tokens, k=10, show_progress=False, n_threads=1)
    return [int(index) for index in documents[0]]


if __name__ == "__main__":
    main(*sys.argv[1:])
