"""The live web behind the tools: engines and fetcher, over a store of recordings and under budgets.

    replay   what was recorded; a miss says so and asks nobody
    record   what was recorded today, else asked and kept
    live     asked, and kept in memory for a while

Calls that are alike and under way are made once. Failures of the outside world are answers like any other and are kept
too, so that a replay shows them again; what a budget refused is not.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agenthub.errors import UserError
from agenthub.registry import registry
from agenthub.sandboxes.search.addresses import BENCHMARK_HOSTS, Refused
from agenthub.sandboxes.search.corpus import MAX_K, MAX_QUERY_CHARS, Hit
from agenthub.sandboxes.search.documents import Document
from agenthub.sandboxes.search.engines import Engine, RateLimited, ask
from agenthub.sandboxes.search.fetch import Fetcher
from agenthub.sandboxes.search.pages import Page, decoded, web_page
from agenthub.sandboxes.search.pdf import PdfReader
from agenthub.sandboxes.search.settings import Settings
from agenthub.sandboxes.search.store import Recording, Store, store_path

__all__ = ["Budget", "Web", "WebSearch", "denied", "today"]

KEPT_S, KEPT_FAILURE_S = 600.0, 60.0
_KEPT = 4096
Ask = Callable[[], Awaitable[Mapping[str, Any]]]


def today() -> str:
    """The day in UTC, YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def denied() -> tuple[str, ...]:
    """Hosts that are not fetched: those that publish benchmarks, and the operator's own list."""
    own = os.environ.get("AGENTHUB_SEARCH_DENY", "").replace(",", " ").split()
    return (*BENCHMARK_HOSTS, *(host.strip(".").lower() for host in own))


class Budget:
    """Live calls that a hub may make: in a minute, and in its run."""

    def __init__(self, per_minute: int, per_run: int, clock: Callable[[], float]) -> None:
        self._per_minute, self._per_run, self._clock = per_minute, per_run, clock
        self._recent: deque[float] = deque()
        self.spent = 0
        """Calls made in this run."""

    @classmethod
    def of_environment(cls, clock: Callable[[], float]) -> Budget:
        """From AGENTHUB_SEARCH_PER_MINUTE and AGENTHUB_SEARCH_PER_RUN. Raises UserError where one is no number."""
        values = []
        for variable, default in (("AGENTHUB_SEARCH_PER_MINUTE", "120"), ("AGENTHUB_SEARCH_PER_RUN", "10000")):
            text = os.environ.get(variable, default)
            if not text.isdigit():
                raise UserError(f"{variable} is {text!r}; expected a number")
            values.append(int(text))
        return cls(values[0], values[1], clock)

    def take(self) -> None:
        """One call. Raises RateLimited where there is none left now."""
        now = self._clock()
        while self._recent and self._recent[0] <= now - 60.0:
            self._recent.popleft()
        if self.spent >= self._per_run:
            raise RateLimited(f"this run's {self._per_run} live calls are spent")
        if len(self._recent) >= self._per_minute:
            raise RateLimited(f"this minute's {self._per_minute} live calls are spent")
        self._recent.append(now)
        self.spent += 1


class Web:
    """Engines, fetcher and stores of one hub."""

    def __init__(
        self,
        isolation: str,
        *,
        fetcher: Fetcher | None = None,
        budget: Budget | None = None,
        day: Callable[[], str] = today,
    ) -> None:
        self.fetcher = fetcher or Fetcher(deny=denied())
        self.pdf = PdfReader(isolation)
        self._budget, self._day = budget, day
        self._stores: dict[str, Store] = {}
        self._pending: dict[str, asyncio.Future[Recording]] = {}
        self._memory: OrderedDict[str, tuple[float, Recording]] = OrderedDict()

    def search(self, settings: Settings) -> WebSearch:
        """The tools' view of an engine. Raises UserError where its recordings cannot be opened."""
        engine: Engine = registry("engine").load(settings.engine)()
        return WebSearch(self, engine, settings)

    async def call(self, kind: str, params: Mapping[str, Any], settings: Settings, live: Ask) -> Recording:
        """What a call gives in the settings' mode.

        Raises:
            UserError: it was not recorded, or it failed; RateLimited where a budget is spent.
        """
        store = None if settings.mode == "live" else self._store(settings.store or "default")
        if store is not None:
            day = settings.day if settings.mode == "replay" else self._day()
            kept = await asyncio.to_thread(store.get, kind, params, day)
            if kept is not None:
                return _sound(kept)
            if settings.mode == "replay":
                on = f" on {day}" if day else ""
                raise UserError(f"not in the recordings{on}: {kind} {_shown(params)}; this hub replays and asks nobody")
        key = f"{settings.mode} {settings.store} {kind} {sorted(params.items())!r}"
        expires, known = self._memory.get(key, (0.0, None))
        if store is None and known is not None and expires > asyncio.get_running_loop().time():
            return _sound(known)
        return _sound(await self._once(key, kind, params, store, live))

    async def _once(self, key: str, kind: str, params: Mapping[str, Any], store: Store | None, live: Ask) -> Recording:
        """Ask, or wait for whoever is asking the same."""
        if key not in self._pending:
            # A task of its own: it goes on for the others where the first that asked is cancelled.
            asking = asyncio.ensure_future(self._ask(key, kind, params, store, live))
            self._pending[key] = asking
            asking.add_done_callback(lambda done: (self._pending.pop(key, None), done.cancelled() or done.exception()))
        return await asyncio.shield(self._pending[key])

    async def _ask(self, key: str, kind: str, params: Mapping[str, Any], store: Store | None, live: Ask) -> Recording:
        loop = asyncio.get_running_loop()
        if self._budget is None:
            self._budget = Budget.of_environment(loop.time)
        self._budget.take()
        try:
            value = await live()
        except RateLimited:
            raise
        except UserError as error:
            value = {"error": str(error)}
        made = Recording(value=value, day=self._day())
        if store is not None:
            await asyncio.to_thread(store.put, kind, params, made.day, value)
        self._memory[key] = (loop.time() + (KEPT_FAILURE_S if "error" in value else KEPT_S), made)
        while len(self._memory) > _KEPT:
            self._memory.popitem(last=False)
        return made

    def _store(self, name: str) -> Store:
        if name not in self._stores:
            self._stores[name] = Store(store_path(name))
        return self._stores[name]

    async def close(self) -> None:
        """End what is under way and close the stores."""
        for asking in list(self._pending.values()):
            asking.cancel()
        await asyncio.gather(*self._pending.values(), return_exceptions=True)
        for store in self._stores.values():
            store.close()
        self._stores.clear()
        await self.pdf.close()


class WebSearch:
    """An engine and the pages it leads to, with a task's settings."""

    def __init__(self, web: Web, engine: Engine, settings: Settings) -> None:
        self._web, self._engine, self._settings = web, engine, settings
        self._day = ""

    @property
    def origin(self) -> str:
        """Where the last text came from, as an observation says."""
        return f"the web by {self._settings.engine}, retrieved {self._day}"

    async def search(self, query: str, k: int) -> tuple[Hit, ...]:
        """The engine's first `k` results. Raises UserError, RateLimited."""
        if not 1 <= k <= MAX_K:
            raise UserError(f"k is {k}; expected 1 to {MAX_K}")
        if not query.strip() or len(query) > MAX_QUERY_CHARS:
            raise UserError(f"the query is empty or longer than {MAX_QUERY_CHARS} characters")
        params = {"engine": self._settings.engine, "query": " ".join(query.split()), "k": k}

        async def live() -> Mapping[str, Any]:
            rows = await ask(self._engine, str(params["query"]), k)
            return {"rows": [[row.title, row.url, row.text] for row in rows]}

        made = await self._web.call("search", params, self._settings, live)
        self._day = made.day
        return tuple(
            Hit(id=url, title=title, text=text, url=url, score=0.0, start=0, end=len(text), passage=0)
            for title, url, text in made.value["rows"]
        )

    async def page(self, name: str) -> Document:
        """The page at an address. Raises UserError, RateLimited."""
        if not self._settings.fetch:
            raise UserError("this task opens no pages of the web")
        params = {"url": name, "allow": list(self._settings.allow)}
        made = await self._web.call("page", params, self._settings, lambda: self._fetched(name))
        self._day = made.day
        row = made.value
        links = tuple((words, there) for words, there in row["links"])
        return Document(id=name, title=row["title"], text=row["text"], url=row["url"], links=links)

    async def _fetched(self, url: str) -> Mapping[str, Any]:
        found = await self._web.fetcher.get(url, allow=self._settings.allow)
        if found.status != 200:
            raise Refused(f"{found.url} answered with status {found.status}")
        page = await self._read(found.media_type, found.body, found.charset)
        digest = hashlib.sha256(found.body).hexdigest()
        return {
            "url": found.url,
            "title": page.title,
            "text": page.text,
            "links": [list(link) for link in page.links],
            "media_type": found.media_type,
            "sha256": digest,
        }

    async def _read(self, kind: str, body: bytes, charset: str) -> Page:
        if kind == "application/pdf":
            return await self._web.pdf.page(body)
        if kind in ("text/html", "application/xhtml+xml"):
            return await web_page(body, charset)
        return Page(title="", text=decoded(body, charset))


def _sound(recording: Recording) -> Recording:
    if "error" in recording.value:
        raise UserError(str(recording.value["error"]))
    return recording


def _shown(params: Mapping[str, Any]) -> str:
    return repr(params.get("query") or params.get("url"))[:200]
