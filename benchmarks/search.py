"""The search sandbox on a million generated passages, beside bm25s on the same passages and queries in the same run.

    python benchmarks/search.py [--quick]

Prints one JSON object a line: {"bench", "case", "metric", "value", "unit"}, with "peer" and "ratio" (more is better)
where bm25s ran beside it, in the environment that scripts/peer-environment makes. The passages are the encyclopedia of
the suite `multihop` among invented text with words in Zipf's proportions; half of the queries are those of its oracle,
with the article that each must find, half are words of a passage. Indexing runs in a process of its own.

    index          `agenthub search index` of all passages
    query_1, _64   1 and 64 clients in process, no query twice
    http_1, _64    the same through POST /retrieve of a served hub
    open           one document by its id
    loop           the longest time for which a second task of the loop waits while 64 clients search
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agenthub.generators.encyclopedia import articles, world  # noqa: E402 - the folder must be on the path first
from agenthub.generators.multihop import questions  # noqa: E402
from agenthub.sandboxes.search.sandbox import SearchSandbox  # noqa: E402

PASSAGES, QUICK_PASSAGES = 1_000_000, 40_000
QUERIES, QUICK_QUERIES = 2000, 400
CONFIG = {"seed": 1, "articles": 6000}
WORDS, VOCABULARY = 90, 200_000
PEER = "bm25s 0.3.16, numba"
START_S = 120.0
MEASURE = "import resource; print(int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024))"
SUITE = """
schema: agenthub.suite/1
suite: {name: bench, version: "1"}
tasks:
  - id: t
    prompt: {user: "?"}
    protocol: search_r1
    tools: [{uses: search, config: {corpus: INDEX}}]
    target: {answer: x}
    verifier: {checks: [{uses: squad_em}]}
"""


@dataclass(slots=True)
class Rows:
    """Prints measurements; with a peer's value beside it, their ratio."""

    quick: bool
    printed: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, case: str, metric: str, value: float, unit: str, peer: float | None = None, *, less: bool = True
    ) -> None:
        """One row. `less`: the smaller value is the better one."""
        row: dict[str, Any] = {
            "bench": "search",
            "case": case,
            "metric": metric,
            "value": round(value, 4),
            "unit": unit,
        }
        if peer is not None:
            ratio = peer / value if less else value / peer
            row |= {"peer": PEER, "peer_value": round(peer, 4), "ratio": round(ratio, 3)}
        row |= {"quick": True} if self.quick else {}
        self.printed.append(row)
        print(json.dumps(row), flush=True)


def main() -> int:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PASSAGES:,} passages, {QUICK_QUERIES} queries")
    parser.add_argument("--no-peer", action="store_true", help="without bm25s")
    given = parser.parse_args()
    rows = Rows(given.quick)
    with tempfile.TemporaryDirectory(prefix="agenthub-search-") as name:
        folder = Path(name)
        asked = write(folder, QUICK_PASSAGES if given.quick else PASSAGES, QUICK_QUERIES if given.quick else QUERIES)
        peer = None if given.no_peer else bm25s(folder)
        index(folder, rows, peer)
        asyncio.run(in_process(folder, asked, rows, peer))
        with serving(folder) as (url, pid):
            asyncio.run(over_http(url, asked, rows))
            rows.add("http_64", "peak_mb", peak_mb(pid), "MiB")
    return 0


def write(folder: Path, passages: int, queries: int) -> list[dict[str, Any]]:
    """Write corpus.jsonl and queries.jsonl; the queries, each with the id that it must find, or none."""
    rng, draw = random.Random(7), np.random.default_rng(7)
    words = ["".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4))) for _ in
             range(VOCABULARY)]  # fmt: skip
    shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    own = list(articles(CONFIG))
    blocks = (np.searchsorted(shares, draw.random((1000, WORDS)) * shares[-1]).tolist() for _ in itertools.count())
    drawn = itertools.chain.from_iterable(blocks)
    every, samples = max(1, passages // len(own)), []
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(passages):
            if number % every == 0 and number // every < len(own):
                row = own[number // every]
            else:
                text = [words[index] for index in next(drawn)]
                row = {"id": f"p{number:07d}", "title": " ".join(text[:3]), "text": " ".join(text)}
                if len(samples) < queries and rng.random() < 4 * queries / passages:
                    samples.append({"query": " ".join(rng.sample(text, 5)), "gold": ""})
            stream.write(json.dumps(row) + "\n")
    hops = [
        {"query": query, "gold": there if step.startswith("-") else here}
        for question in itertools.islice(questions(world(1, 6000), 1, (2, 3, 4)), queries)
        for query, step, here, there in zip(
            question.queries, question.steps, question.path, question.path[1:], strict=False
        )
    ]
    asked = [*samples[: queries // 2], *hops[: queries // 2]]
    rng.shuffle(asked)
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return asked


def bm25s(folder: Path) -> dict[str, Any] | None:
    """What bm25s gives for the same; None where it cannot be had here."""
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "peer-environment", "bm25s"], capture_output=True, text=True
    )
    if made.returncode:
        print(made.stderr.strip(), file=sys.stderr)
        return None
    script = ROOT / "benchmarks" / "search_peers" / "bm25s_peer.py"
    command = [made.stdout.strip(), script, folder / "corpus.jsonl", folder / "queries.jsonl"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def index(folder: Path, rows: Rows, peer: dict[str, Any] | None) -> None:
    """Index in a process of its own, whose peak memory its parent reads."""
    command = [sys.executable, "-m", "agenthub", "search", "index", str(folder / "corpus.jsonl")]
    command += ["--out", str(folder / "index"), "--name", "bench"]
    program = f"import subprocess, sys; subprocess.run({command!r}, check=True, stdout=sys.stderr); {MEASURE}"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    seconds = time.perf_counter() - started
    count = sum(1 for _ in (folder / "corpus.jsonl").open("rb"))
    size = sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file())
    rows.add("index", "passages_per_s", count / seconds, "1/s", peer and count / peer["index_s"], less=False)
    rows.add("index", "peak_mb", float(done.stdout.strip()), "MiB", peer and peer["peak_mb"])
    rows.add("index", "size_mb", size / (1 << 20), "MiB")


async def in_process(folder: Path, asked: Sequence[dict[str, Any]], rows: Rows, peer: dict[str, Any] | None) -> None:
    """Queries and opened pages without a wire."""
    factory = SearchSandbox()
    await factory.open()
    try:
        source = await factory.source(str(folder / "index"), {})
        found: dict[str, list[str]] = {}

        async def search(row: dict[str, Any]) -> None:
            found[row["query"]] = [hit.id for hit in await source.search(row["query"], 10)]

        await clients(asked[:50], 8, search)  # pages of the index come into memory
        forget(source)
        times = await clients(asked, 1, search)
        report("query_1", times, rows, peer and peer["times_ms"])
        forget(source)
        waits, times = await watched(clients(asked, 64, search))
        report("query_64", times, rows, peer and peer["times_64_ms"])
        rows.add("loop", "longest_wait_ms", max(waits), "ms")
        recall(asked, [found[row["query"]] for row in asked], rows, peer)
        ids = [hits[0] for hits in found.values() if hits]

        async def page(id: str) -> None:
            await source.page(id)

        rows.add("open", "p50_ms", statistics.median(await clients(ids, 1, page)), "ms")
    finally:
        await factory.close()


def forget(source: Any) -> None:
    """Empty the cache of answered queries: what is measured is the index."""
    source.corpus._cache.clear()


async def watched(work: Awaitable[list[float]]) -> tuple[list[float], list[float]]:
    """`work`, and by how many milliseconds a task that sleeps for 1 ms woke up late meanwhile."""
    late: list[float] = []

    async def beat() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - started) * 1e3 - 1)

    beating = asyncio.create_task(beat())
    try:
        return late, await work
    finally:
        beating.cancel()


def recall(
    asked: Sequence[dict[str, Any]], found: Sequence[list[str]], rows: Rows, peer: dict[str, Any] | None
) -> None:
    """The share of the multi-hop queries whose article is among the first ten."""

    def share(all_found: Sequence[list[str]]) -> float:
        hits = [row["gold"] in ids for row, ids in zip(asked, all_found, strict=True) if row["gold"]]
        return sum(hits) / len(hits)

    rows.add("query_1", "recall_10", share(found), "share", peer and share(peer["found"]), less=False)


async def clients(items: Sequence[Any], count: int, work: Callable[[Any], Awaitable[None]]) -> list[float]:
    """Milliseconds of each item, taken in turn by `count` clients."""
    left, times = iter(items), list[float]()

    async def one() -> None:
        for item in left:
            started = time.perf_counter()
            await work(item)
            times.append((time.perf_counter() - started) * 1e3)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    return times


def report(case: str, times: Sequence[float], rows: Rows, peer: Sequence[float] | None) -> None:
    """p50 and p95 of a case."""
    for metric, number in (("p50_ms", 50), ("p95_ms", 95)):
        beside = percentile(peer, number) if peer else None
        rows.add(case, metric, percentile(times, number), "ms", beside)


def percentile(values: Sequence[float], number: int) -> float:
    """The value that `number` percent are not above."""
    return sorted(values)[min(len(values) - 1, len(values) * number // 100)]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """A hub over the index; its URL and process id inside the context."""
    tasks, ready = folder / "bench.yaml", folder / "ready"
    tasks.write_text(SUITE.replace("INDEX", str(folder / "index")))
    command = [sys.executable, "-m", "agenthub", "serve", "--port", "0", "--tasks", str(tasks)]
    command += ["--log", str(folder / "log.sqlite"), "--ready-file", str(ready)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the hub did not start")
            time.sleep(0.05)
        yield str(json.loads(ready.read_text())["url"]), process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def peak_mb(pid: int) -> float:
    """The most memory that a process had resident, MiB; pages of the index that are mapped are part of it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


async def over_http(url: str, asked: Sequence[dict[str, Any]], rows: Rows) -> None:
    """The same queries through POST /retrieve, a query a request."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def search(row: dict[str, Any]) -> None:
            body = {"queries": [row["query"]], "topk": 10, "return_scores": True}
            async with session.post(f"{url}/retrieve/bench", json=body) as answer:
                answer.raise_for_status()
                await answer.read()

        half = len(asked) // 2  # no query twice: the hub keeps answers
        report("http_1", await clients(asked[:half], 1, search), rows, None)
        report("http_64", await clients(asked[half:], 64, search), rows, None)
    print(f"search: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
