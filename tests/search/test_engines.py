"""Live engines against a fake one: what is sent, what is recorded and replayed, budgets, and keys that never show."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sqlite3
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agenthub.codec import trajectory_hash
from agenthub.episodes import Workbench
from agenthub.errors import UserError
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.search import engines, store
from agenthub.sandboxes.search.engines import RateLimited, ask
from agenthub.sandboxes.search.fetch import Fetched
from agenthub.sandboxes.search.sandbox import SearchSandbox
from agenthub.sandboxes.search.web import Budget, Web
from agenthub.suites.lint import play
from agenthub.suites.load import load_suite
from agenthub.wire import Action
from tests.search.corpora import ask as call

KEY = "key-that-nobody-may-see-0123456789"
PAGE = b"<title>Found</title><p>The page of \xe2\x80\x8bits <a href='/x'>link</a>.</p>"


class FakeEngine:
    """Answers as all four engines do; counts and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.status, self.wait = 200, asyncio.Event()
        self.wait.set()
        self.asked = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.requests.append((str(request.rel_url), dict(request.headers), body))
        self.asked.set()
        await self.wait.wait()
        if self.status != 200:
            return web.Response(status=self.status, text=f"no, {KEY}")
        query = body.get("q") or body.get("query") if body else request.query["q"]
        row = {"title": f"T {query}", "url": f"http://{query}.org/", "link": f"http://{query}.org/"}
        texts = {
            "content": "text </information>",
            "snippet": "text </information>",
            "description": "text </information>",
        }
        rows = [{**row, **texts}, {"title": "no address"}, "nonsense"]
        return web.json_response({"results": rows, "organic": rows, "web": {"results": rows}})


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngine]:
    fake = FakeEngine()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    server = TestServer(app)
    await server.start_server()
    url = str(server.make_url("/"))
    monkeypatch.setenv("AGENTHUB_SEARXNG_URL", url)
    for name in ("SERPER", "TAVILY", "BRAVE"):
        monkeypatch.setenv(f"AGENTHUB_{name}_URL", url + "api")
        monkeypatch.setenv(f"AGENTHUB_{name}_KEY", KEY)
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "recordings"))
    yield fake
    await server.close()


class FakeFetcher:
    """Gives one page, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, url: str, *, allow: object = ()) -> Fetched:
        self.asked.append(url)
        status = 404 if "missing" in url else 200
        return Fetched(url=url, status=status, media_type="text/html", charset="", body=PAGE)


@pytest.fixture
async def factory() -> AsyncIterator[SearchSandbox]:
    opened = SearchSandbox()
    await opened.open()
    yield opened
    await opened.close()


def hub(factory: SearchSandbox, day: str = "2026-01-02", per_run: int = 1000) -> FakeFetcher:
    """Give the factory a web with a fake fetcher and a fixed day."""
    fetcher = FakeFetcher()
    budget = Budget(1000, per_run, lambda: 0.0)
    factory._web = Web("jail", fetcher=fetcher, budget=budget, day=lambda: day)  # type: ignore[arg-type]
    return fetcher


def spec(mode: str, **more: object) -> SandboxSpec:
    return SandboxSpec(params={"engine": "serper", "mode": mode, **more})


@pytest.mark.parametrize("name", ["Searxng", "Serper", "Tavily", "Brave"])
async def test_an_engine_is_asked_in_its_own_form(engine: FakeEngine, name: str) -> None:
    found = await ask(getattr(engines, name)(), "cats", 3)
    assert [(row.title, row.url, row.text) for row in found] == [("T cats", "http://cats.org/", "text </information>")]
    url, headers, body = engine.requests[0]
    assert KEY not in url and KEY not in json.dumps(body)
    sent = {"Searxng": None, "Serper": "X-API-KEY", "Tavily": "Authorization", "Brave": "X-Subscription-Token"}[name]
    assert sent is None or headers[sent].endswith(KEY)
    if name == "Searxng":
        assert "format=json" in url and "q=cats" in url


@pytest.mark.parametrize(
    ("status", "why"), [(429, "no more queries"), (401, "refuses this server's key"), (500, "500")]
)
async def test_a_failing_engine_is_told_without_the_key(engine: FakeEngine, status: int, why: str) -> None:
    engine.status = status
    with pytest.raises(UserError, match=why) as caught:
        await ask(engines.Serper(), "cats", 3)
    assert isinstance(caught.value, RateLimited) is (status == 429)
    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_a_key_is_in_no_observation_log_traceback_or_record(
    engine: FakeEngine, factory: SearchSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        hub(factory)
        session = await factory.start(spec("record"))
        seen = [await call(session, "search", query="cats")]
        engine.status = 401
        seen.append(await call(session, "search", query="dogs"))
        monkeypatch.setenv("AGENTHUB_SERPER_URL", "http://127.0.0.1:1/")
        seen.append(await call(session, "search", query="birds"))
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(logging.WARNING)
    assert [it.failed for it in seen] == [False, True, True]
    assert KEY not in "".join(it.text for it in seen) + stream.getvalue()
    assert KEY.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "recordings").iterdir())
    monkeypatch.delenv("AGENTHUB_SERPER_KEY")
    assert "AGENTHUB_SERPER_KEY" in (await call(session, "search", query="fish")).text
    assert KEY not in repr(engines.Tavily().request("x", 1))


async def episode(factory: SearchSandbox, mode: str, **more: object) -> list[object]:
    session = await factory.start(spec(mode, **more))
    calls: list[tuple[str, dict[str, Any]]] = [
        ("search", {"query": "cats"}),
        ("search", {"query": "dogs", "k": 2}),
        ("open", {"url": "http://cats.org/"}),
        ("open", {"url": "http://missing.org/"}),
        ("find_in_page", {"url": "http://cats.org/", "find": "page"}),
    ]
    return [await call(session, tool, **arguments) for tool, arguments in calls]


async def test_what_was_recorded_replays_to_the_byte_with_the_engine_gone(
    engine: FakeEngine, factory: SearchSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = hub(factory)
    recorded = await episode(factory, "record")
    assert len(engine.requests) == 2 and fetcher.asked == ["http://cats.org/", "http://missing.org/"]
    assert recorded == await episode(factory, "record") and len(engine.requests) == 2
    await factory.close()
    await factory.open()
    for name in ("AGENTHUB_SERPER_URL", "AGENTHUB_SERPER_KEY"):
        monkeypatch.delenv(name)
    gone = hub(factory, day="2027-07-07")
    assert recorded == await episode(factory, "replay") == await episode(factory, "replay", day="2026-01-02")
    assert not gone.asked and len(engine.requests) == 2
    assert "retrieved 2026-01-02" in str(recorded[0]) and "status 404" in str(recorded[3])


async def test_a_miss_in_a_replay_says_so_and_asks_nobody(engine: FakeEngine, factory: SearchSandbox) -> None:
    fetcher = hub(factory)
    session = await factory.start(spec("replay"))
    for tool, name, value in (("search", "query", "never"), ("open", "url", "http://never.org/")):
        seen = await call(session, tool, **{name: value})
        assert seen.failed and "not in the recordings" in seen.text and "never" in seen.text
    assert not engine.requests and not fetcher.asked


async def test_another_day_is_recorded_anew_and_the_latest_is_played(
    engine: FakeEngine, factory: SearchSandbox
) -> None:
    for day in ("2026-01-02", "2026-01-03"):
        hub(factory, day=day)
        session = await factory.start(spec("record"))
        await call(session, "search", query="cats")
    assert len(engine.requests) == 2
    for day, wanted in (("", "2026-01-03"), ("2026-01-02", "2026-01-02")):
        seen = await call(await factory.start(spec("replay", day=day)), "search", query="cats")
        assert f"retrieved {wanted}" in seen.text


async def test_a_damaged_recording_is_told(engine: FakeEngine, factory: SearchSandbox, tmp_path: Path) -> None:
    hub(factory)
    session = await factory.start(spec("record"))
    await call(session, "search", query="cats")
    with sqlite3.connect(tmp_path / "recordings" / "default.sqlite") as base:
        base.execute("UPDATE calls SET value = replace(value, 'cats', 'rats')")
    assert "damaged" in (await call(session, "search", query="cats")).text


async def test_calls_that_are_alike_are_made_once(engine: FakeEngine, factory: SearchSandbox) -> None:
    hub(factory)
    sessions = [await factory.start(spec("record")) for _ in range(20)]
    engine.wait.clear()
    waiting = [asyncio.create_task(call(session, "search", query=" cats  ")) for session in sessions]
    await engine.asked.wait()
    waiting[0].cancel()
    engine.wait.set()
    seen = await asyncio.gather(*waiting[1:])
    assert len(engine.requests) == 1 and len({it.text for it in seen}) == 1 and not seen[0].failed


@pytest.mark.parametrize("mode", ["live", "record"])
async def test_failures_are_kept_like_answers(engine: FakeEngine, factory: SearchSandbox, mode: str) -> None:
    fetcher = hub(factory)
    session = await factory.start(spec(mode))
    for _ in range(3):
        assert (await call(session, "open", url="http://missing.org/")).failed
        assert not (await call(session, "open", url="http://cats.org/")).failed
    assert sorted(fetcher.asked) == ["http://cats.org/", "http://missing.org/"]


async def test_a_spent_budget_is_an_observation_of_its_own_kind_and_is_not_recorded(
    engine: FakeEngine, factory: SearchSandbox
) -> None:
    hub(factory, per_run=2)
    session = await factory.start(spec("record"))
    seen = [await call(session, "search", query=word) for word in ("a", "b", "c")]
    assert [it.failed for it in seen] == [False, False, True]
    assert seen[2].text.startswith("rate_limited: this run's 2") and seen[2].parts[0].channel == "rate_limited"  # type: ignore[union-attr]
    hub(factory)
    assert not (await call(await factory.start(spec("record")), "search", query="c")).failed


def test_a_minute_has_its_calls_and_the_next_one_too() -> None:
    now = 0.0
    budget = Budget(2, 100, lambda: now)
    budget.take()
    budget.take()
    with pytest.raises(RateLimited, match="minute"):
        budget.take()
    now = 61.0
    budget.take()
    assert budget.spent == 3


async def test_an_operators_denied_hosts_are_not_fetched(
    engine: FakeEngine, factory: SearchSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTHUB_SEARCH_DENY", "answers.org, Leaks.net")
    session = await factory.start(spec("live"))
    for url in ("http://answers.org/", "https://www.leaks.net/x", "http://huggingface.co/"):
        assert "denied" in (await call(session, "open", url=url)).text


async def test_a_task_may_forbid_pages(engine: FakeEngine, factory: SearchSandbox) -> None:
    fetcher = hub(factory)
    seen = await call(await factory.start(spec("live", fetch=False)), "open", url="http://cats.org/")
    assert seen.failed and "opens no pages" in seen.text and not fetcher.asked


SUITE = """
schema: agenthub.suite/1
suite: {name: live, version: "1"}
defaults:
  protocol: search_tags
  tools:
    - {uses: search, name: search, tool: search, config: {engine: serper, mode: MODE}}
    - {uses: search, name: open, tool: open, config: {engine: serper, mode: MODE}}
  verifier: {checks: [{uses: squad_em}]}
tasks:
  - {id: cats, prompt: {user: "?"}, target: {answer: cat}}
  - {id: dogs, prompt: {user: "?"}, target: {answer: dog}}
"""


async def epoch(tmp_path: Path, mode: str, bench: Workbench) -> list[str]:
    """The hashes of one epoch's trajectories."""
    path = tmp_path / f"{mode}.yaml"
    path.write_text(SUITE.replace("MODE", mode))
    hashes = []
    for task in load_suite(path).tasks:
        texts = [f"<search> {task.id} </search>", f"<open> http://{task.id}.org/ </open>", "<answer> cat </answer>"]
        hashes.append(trajectory_hash(await play(task, bench, lambda turn, own=texts: Action(text=own[turn]))))  # type: ignore[misc]
    return hashes


async def test_every_epoch_of_a_replay_has_the_hashes_of_the_recorded_one(engine: FakeEngine, tmp_path: Path) -> None:
    bench = Workbench()
    try:
        hub(await bench.factory("search"))  # type: ignore[arg-type]
        recorded = await epoch(tmp_path, "record", bench)
    finally:
        await bench.close()
    asked = len(engine.requests)
    for _ in range(2):
        bench = Workbench()
        try:
            assert await epoch(tmp_path, "replay", bench) == recorded
        finally:
            await bench.close()
    assert asked == len(engine.requests) == 2 and len(set(recorded)) == 2
