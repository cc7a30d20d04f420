"""The factory of search sandboxes and the tools `search`, `open` and `find_in_page`.

A session has no box: it runs in the hub and holds nothing but what it was told. Index queries run in threads of the
factory, so that no query holds up another episode's step.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agenthub.errors import BoxLost, HostFault, UserError
from agenthub.records import Call, Observation, frozen
from agenthub.sandbox import Capabilities, CodeBox, SandboxSpec, ToolSpec
from agenthub.sandboxes.fileless import NoFiles
from agenthub.sandboxes.search.corpus import MAX_K, Corpus, Hit
from agenthub.sandboxes.search.documents import Document
from agenthub.sandboxes.search.engines import RateLimited
from agenthub.sandboxes.search.outside import clean
from agenthub.sandboxes.search.pages import MAX_FOUND, find, part
from agenthub.sandboxes.search.places import find_corpus
from agenthub.sandboxes.search.settings import Settings, settings_of
from agenthub.sandboxes.search.shown import Piece, failure, shown
from agenthub.sandboxes.search.web import Web, WebSearch

__all__ = ["TOOLS", "SearchSandbox", "SearchSession", "Source"]

T = TypeVar("T")
_ID = {"type": "string", "description": "Id of a document, as a search showed it."}
_URL = {"type": "string", "description": "Address of a page, in place of an id."}

TOOLS = (
    ToolSpec(
        name="search",
        description="Finds the passages that fit a query best, each with its title and the id of its document.",
        parameters=frozen(
            {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "Words to look for."},
                    "k": {"type": "integer", "minimum": 1, "maximum": MAX_K, "description": "Number of passages."},
                },
                "required": ["query"],
                "additionalProperties": False,
            }
        ),
    ),
    ToolSpec(
        name="open",
        description="Shows a document by its id or address, a part at a time, or the places in it where a text stands.",
        parameters=frozen(
            {
                "type": "object",
                "properties": {
                    "id": _ID,
                    "url": _URL,
                    "page": {"type": "integer", "minimum": 1, "description": "Part of the document, from 1."},
                    "find": {"type": "string", "description": "Show only the places where this stands."},
                },
                "additionalProperties": False,
            }
        ),
    ),
    ToolSpec(
        name="find_in_page",
        description="Shows the places in a document where a text stands, without regard to case.",
        parameters=frozen(
            {
                "type": "object",
                "properties": {"id": _ID, "url": _URL, "find": {"type": "string", "description": "The text."}},
                "required": ["find"],
                "additionalProperties": False,
            }
        ),
    ),
)


class Source:
    """A corpus as the tools use it: its queries run in the factory's threads."""

    def __init__(self, corpus: Corpus, threads: ThreadPoolExecutor) -> None:
        self.corpus, self._threads = corpus, threads

    @property
    def origin(self) -> str:
        """Where its text comes from, as an observation says."""
        return f"the corpus {self.corpus.name}"

    async def search(self, query: str, k: int) -> tuple[Hit, ...]:
        """As `Corpus.search`."""
        return await self._off(lambda: self.corpus.search(query, k))

    async def page(self, name: str) -> Document:
        """As `Corpus.page`."""
        return await self._off(lambda: self.corpus.page(name))

    async def _off(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class SearchSession(NoFiles):
    """A `Sandbox` over a corpus or the web."""

    def __init__(self, source: Source | WebSearch, settings: Settings) -> None:
        self._source, self._settings = source, settings
        self._closed = False

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """Run one tool call; what is wrong with it is an observation."""
        if self._closed:
            raise BoxLost("the search sandbox is closed")
        try:
            arguments = _arguments(call)
            async with asyncio.timeout(timeout_s):
                return await self._run(call, arguments)
        except TimeoutError:
            return failure(call.id, f"interrupted: it took more than {timeout_s:g} s")
        except RateLimited as error:
            return failure(call.id, f"rate_limited: {error}", channel="rate_limited")
        except UserError as error:
            return failure(call.id, str(error))

    async def fork(self, n: int) -> Sequence[SearchSession]:
        """`n` sessions over the same source."""
        return [SearchSession(self._source, self._settings) for _ in range(n)]

    async def close(self) -> None:
        """Nothing is held."""
        self._closed = True

    async def _run(self, call: Call, arguments: dict[str, Any]) -> Observation:
        if call.tool == "search" or not call.tool:
            return await self._search(call.id, arguments["query"], arguments.get("k", self._settings.k))
        name = arguments.get("id") or arguments.get("url")
        if not name:
            raise UserError("argument id or url is missing")
        document = await self._source.page(name)
        if call.tool == "find_in_page" or "find" in arguments:
            return await asyncio.to_thread(self._places, call.id, document, arguments["find"])
        return self._part(call.id, document, arguments.get("page", 1))

    async def rows(self, query: str, k: int) -> list[dict[str, Any]]:
        """As `SearchSandbox.retrieve`."""
        made = []
        for hit in await self._source.search(query, k):
            title, text = clean(" ".join(hit.title.split())).text, clean(hit.text.strip()).text
            made.append({"id": _name(hit), "title": title, "text": text, "url": hit.url, "score": hit.score})
        return made

    async def _search(self, call_id: str, query: str, k: int) -> Observation:
        hits = await self._source.search(query, k)
        pieces = [Piece(title=hit.title, source=_where(hit), text=hit.text) for hit in hits]
        notices = [] if hits else ["nothing was found"]
        return shown(call_id, pieces, origin=self._source.origin, notices=notices, chars=self._settings.passage_chars)

    def _part(self, call_id: str, document: Document, page: int) -> Observation:
        text, pages, _ = part(document.text, page, self._settings.page_chars)
        where = f"{document.url or document.id}, page {page} of {pages}"
        piece = Piece(title=document.title, source=where, text=text)
        links = _links_in(document, text)
        pieces = [piece, Piece(title="Links", source=document.id, text=links)] if links else [piece]
        return shown(call_id, pieces, origin=self._source.origin)

    def _places(self, call_id: str, document: Document, pattern: str) -> Observation:
        if not pattern.strip():
            raise UserError("argument find is empty")
        places, count = find(document.text, pattern)
        pieces = []
        for place in places:
            page = place.start // self._settings.page_chars + 1
            pieces.append(Piece(title=document.title, source=f"{document.id}, page {page}", text=place.excerpt))
        number = f"{count} or more" if count == MAX_FOUND else str(count)
        more = f"it stands in {number} places" + (f"; the first {len(places)} are shown" if count > len(places) else "")
        return shown(call_id, pieces, origin=self._source.origin, notices=[more])


class SearchSandbox:
    """A `SandboxFactory`. Every corpus is opened once and shared."""

    tools: tuple[ToolSpec, ...] = TOOLS

    def __init__(self, isolation: str = "jail") -> None:
        self._isolation = isolation
        self._threads: ThreadPoolExecutor | None = None
        self._sources: dict[str, Source] = {}
        self._lock = asyncio.Lock()
        self._web: Web | None = None

    def capabilities(self) -> Capabilities:
        """A session holds nothing; what a corpus shows changes only with its index."""
        return Capabilities(persistent=False, deterministic=True, fork="native")

    async def open(self) -> None:
        """Start the threads."""
        self._threads = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1), thread_name_prefix="search")

    async def start(self, spec: SandboxSpec) -> SearchSession:
        """A session. Raises as SandboxFactory.start says: UserError where there is no such corpus or engine."""
        settings = settings_of(spec.params)
        if settings.engine:
            if self._web is None:
                self._web = Web(self._isolation)
            return SearchSession(self._web.search(settings), settings)
        return SearchSession(await self.source(settings.corpus, settings.corpus_config), settings)

    async def source(self, name: str, config: Mapping[str, Any]) -> Source:
        """The corpus of that name, opened at its first use. Raises UserError."""
        if self._threads is None:
            raise HostFault("the search sandbox is not open")
        key = f"{name} {sorted(config.items())!r}"
        async with self._lock:
            if key not in self._sources:
                opened = asyncio.get_running_loop().run_in_executor(self._threads, _opened, name, config)
                self._sources[key] = Source(await opened, self._threads)
            return self._sources[key]

    async def retrieve(self, query: str, k: int, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The best passages as rows with `id`, `title`, `text`, `url` and `score`; cleaned as in an observation.

        Raises:
            UserError: the settings or the query cannot be used.
        """
        session = await self.start(SandboxSpec(params=params))
        return await session.rows(query.encode("utf-8", "replace").decode(), k)

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        """This sandbox runs no code. Raises UserError."""
        del spec
        raise UserError("the search sandbox runs no code that could be graded")

    async def close(self) -> None:
        """End the threads."""
        self._sources.clear()
        if self._web is not None:
            await self._web.close()
            self._web = None
        if self._threads is not None:
            threads, self._threads = self._threads, None
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)


def _opened(name: str, config: Mapping[str, Any]) -> Corpus:
    return Corpus(Path(find_corpus(name, config)))


def _arguments(call: Call) -> dict[str, Any]:
    """The call's arguments. Raises UserError where one is missing, not known or of another type."""
    spec = next((tool for tool in TOOLS if tool.name == (call.tool or "search")), None)
    if spec is None:
        raise UserError(f"the search sandbox has no tool {call.tool!r}")
    properties: Mapping[str, Any] = spec.parameters["properties"]
    given = {name: value for name, value in call.arguments.items() if value is not None}
    for name, value in given.items():
        if name not in properties:
            raise UserError(f"argument {name!r} is not known; expected {', '.join(properties)}")
        wanted = str if properties[name]["type"] == "string" else int
        if type(value) is not wanted:
            raise UserError(f"argument {name} is {value!r:.100}; expected a {properties[name]['type']}")
    for name in spec.parameters.get("required", ()):
        if name not in given:
            raise UserError(f"argument {name} is missing")
    return {name: _sound(value) for name, value in given.items()}


def _sound(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _name(hit: Hit) -> str:
    return f"{hit.id}#{hit.passage}" if hit.passage else hit.id


def _where(hit: Hit) -> str:
    address = f"{hit.id}, {hit.url}" if hit.url and hit.url != hit.id else hit.id
    return f"{address}, characters {hit.start} to {hit.end}" if hit.passage or hit.start else address


def _links_in(document: Document, text: str) -> str:
    """The links whose words stand in a part, a line each."""
    lines = [f"{words}: {target}" for words, target in document.links if words and words in text]
    return "\n".join(lines[:50])
