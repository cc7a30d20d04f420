"""Live search engines, each as a request and a reading of its answer.

A key comes from the server's environment and goes into a header; no error and no record holds it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import aiohttp

from agenthub.errors import UserError

__all__ = ["Brave", "Engine", "RateLimited", "Request", "Row", "Searxng", "Serper", "Tavily", "ask"]

SECONDS = 15.0
MOST_BYTES = 4 << 20


class RateLimited(UserError):
    """An engine or a budget allows no more calls now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent to an engine."""

    method: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Holds the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One result, whatever engine gave it."""

    title: str
    url: str
    text: str


class Engine(Protocol):
    """A search engine."""

    def request(self, query: str, k: int) -> Request:
        """The request of a query.

        Raises:
            UserError: the server's environment lacks the key or the address; says which variable.
        """

    def rows(self, answer: Mapping[str, Any]) -> Sequence[Row]:
        """The results of an answer; what is no result is left out."""


class Searxng:
    """A SearXNG instance of the operator's own, with the format `json` enabled in its settings."""

    def request(self, query: str, k: int) -> Request:
        """As `Engine.request`; it has no parameter for the number of results."""
        del k
        base = _needed("AGENTHUB_SEARXNG_URL").rstrip("/")
        return Request(method="GET", url=f"{base}/search", params={"q": query, "format": "json"})

    def rows(self, answer: Mapping[str, Any]) -> Sequence[Row]:
        """As `Engine.rows`."""
        return _rows(answer.get("results"), "url", "content")


class Serper:
    """google.serper.dev."""

    url: ClassVar[str] = "https://google.serper.dev/search"

    def request(self, query: str, k: int) -> Request:
        """As `Engine.request`."""
        headers = {"X-API-KEY": _needed("AGENTHUB_SERPER_KEY")}
        url = os.environ.get("AGENTHUB_SERPER_URL", self.url)
        return Request(method="POST", url=url, body={"q": query, "num": k}, headers=headers)

    def rows(self, answer: Mapping[str, Any]) -> Sequence[Row]:
        """As `Engine.rows`."""
        return _rows(answer.get("organic"), "link", "snippet")


class Tavily:
    """api.tavily.com."""

    url: ClassVar[str] = "https://api.tavily.com/search"

    def request(self, query: str, k: int) -> Request:
        """As `Engine.request`."""
        headers = {"Authorization": f"Bearer {_needed('AGENTHUB_TAVILY_KEY')}"}
        url = os.environ.get("AGENTHUB_TAVILY_URL", self.url)
        return Request(method="POST", url=url, body={"query": query, "max_results": k}, headers=headers)

    def rows(self, answer: Mapping[str, Any]) -> Sequence[Row]:
        """As `Engine.rows`."""
        return _rows(answer.get("results"), "url", "content")


class Brave:
    """api.search.brave.com."""

    url: ClassVar[str] = "https://api.search.brave.com/res/v1/web/search"

    def request(self, query: str, k: int) -> Request:
        """As `Engine.request`."""
        headers = {"X-Subscription-Token": _needed("AGENTHUB_BRAVE_KEY")}
        url = os.environ.get("AGENTHUB_BRAVE_URL", self.url)
        return Request(method="GET", url=url, params={"q": query, "count": str(min(k, 20))}, headers=headers)

    def rows(self, answer: Mapping[str, Any]) -> Sequence[Row]:
        """As `Engine.rows`."""
        web = answer.get("web")
        return _rows(web.get("results") if isinstance(web, dict) else None, "url", "description")


async def ask(engine: Engine, query: str, k: int) -> Sequence[Row]:
    """The best `k` results of an engine.

    Raises:
        RateLimited: the engine says so.
        UserError: the engine cannot be asked, or did not answer as it should; never holds the key.
    """
    request = engine.request(query, k)
    name = type(engine).__name__
    try:
        async with (
            asyncio.timeout(SECONDS),
            aiohttp.ClientSession(trust_env=False) as session,
            session.request(
                request.method,
                request.url,
                params=request.params,
                json=request.body,
                headers=request.headers,
                allow_redirects=False,
            ) as response,
        ):
            status = response.status
            answer = await _answer(response) if status == 200 else {}
    except TimeoutError:
        raise UserError(f"{name} did not answer within {SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The text of such an error may quote what was sent.
        raise UserError(f"{name} could not be asked: {type(error).__name__}") from None
    if status == 429:
        raise RateLimited(f"{name} allows no more queries now")
    if status in (401, 403):
        raise UserError(f"{name} refuses this server's key (status {status})")
    if status != 200:
        raise UserError(f"{name} answered with status {status}")
    return engine.rows(answer)[:k]


async def _answer(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    from pydantic_core import from_json

    data = await response.content.read(MOST_BYTES + 1)
    while len(data) <= MOST_BYTES and not response.content.at_eof():
        data += await response.content.read(MOST_BYTES + 1 - len(data))
    value = from_json(data) if len(data) <= MOST_BYTES else None
    if not isinstance(value, dict):
        raise ValueError("the answer is no object")
    return value


def _needed(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise UserError(f"the server's environment lacks {variable}")
    return value


def _rows(given: Any, url: str, text: str) -> list[Row]:
    made = []
    for row in given if isinstance(given, list) else []:
        if isinstance(row, dict) and isinstance(row.get(url), str):
            made.append(Row(title=str(row.get("title") or ""), url=row[url], text=str(row.get(text) or "")))
    return made
