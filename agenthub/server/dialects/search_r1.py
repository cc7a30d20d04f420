"""The retrievers of Search-R1, its online variant and ZeroSearch: one path, told apart by the body.

    {"queries": [...], "topk": 3, "return_scores": true}   Search-R1, verl, SkyRL, slime
    {"queries": [...]}                                      Search-R1's online search: documents without id and score
    {"query": "...", "top_k": 3}                            ZeroSearch

Give their clients `http://host:port/retrieve/{suite}`: what is searched is what the search tool of that suite's
episodes searches. `/retrieve` alone does where the served suites have one such corpus between them. A batch is one
step of its caller's quotas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from agenthub.errors import UserError, WireError
from agenthub.server.answers import JSON, dumps
from agenthub.server.dialects.caller import Caller, Callers
from agenthub.server.owner import stopping
from agenthub.server.params import parse_json, read
from agenthub.server.routes import retry_after_s

__all__ = ["SearchR1"]

_TOOL = "search"
_DEFAULT_K, _MOST_K, _MOST_QUERIES = 3, 100, 4096
_MOST_PASSAGES = 20_000
"""Of one batch."""
_AT_ONCE = 16


class _Retriever(Protocol):
    """The part of the search sandbox's factory that this uses."""

    async def retrieve(self, query: str, k: int, params: Mapping[str, Any]) -> list[dict[str, Any]]: ...


class RetrieveIn(BaseModel):
    """Body of Search-R1's clients."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    queries: list[str] = Field(max_length=_MOST_QUERIES)
    topk: int | None = Field(default=None, ge=1, le=_MOST_K)
    return_scores: bool | None = None


class ZeroSearchIn(BaseModel):
    """Body of ZeroSearch's client."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    query: str
    top_k: int | None = Field(default=None, ge=1, le=_MOST_K)


class SearchR1:
    """The routes of the dialect."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def add_routes(self, app: web.Application) -> None:
        """Serve /retrieve and /retrieve/{suite}."""
        app.router.add_post("/retrieve", self._retrieve)
        app.router.add_post("/retrieve/{suite}", self._retrieve)

    async def _retrieve(self, request: web.Request) -> web.Response:
        caller = self._callers.of(request)
        hub = caller.dispatcher

        async def work() -> Any:
            if not hub.ready:
                raise stopping()
            body = parse_json(await request.read())
            params = await self._params(caller, request.match_info.get("suite"))
            caller.who.account.step()
            return await _answer(caller, body, params)

        try:
            row = await hub.journal.watch("retrieve", {}, caller.who, work)
        except WireError as refused:
            headers = {"Retry-After": str(retry_after_s(refused))} if refused.status in (429, 503) else {}
            return _json({"detail": refused.message}, refused.status, headers)
        return _json(row)

    async def _params(self, caller: Caller, suite: str | None) -> Mapping[str, Any]:
        """The settings of a suite's search tool; of the only one where no suite is named. Raises WireError."""
        catalog = caller.dispatcher.catalog
        if suite is not None:
            found = await _tool_of(caller, suite)
            if found is None:
                raise WireError("invalid", 422, f"suite {suite!r} has no search tool")
            return found
        rows = (await catalog.list())["suites"]
        tools = {row["name"]: await _tool_of(caller, row["name"]) for row in rows if row.get("available", True)}
        having = {name: params for name, params in tools.items() if params is not None}
        if not having:
            raise WireError("invalid", 422, "no suite that this hub serves has a search tool")
        first = next(iter(having.values()))
        if any(params != first for params in having.values()):
            names = ", ".join(sorted(having))
            raise WireError(
                "invalid", 422, f"the suites search several corpora; ask at /retrieve/SUITE with one of {names}"
            )
        return first


async def _tool_of(caller: Caller, suite: str) -> Mapping[str, Any] | None:
    """The settings of the search tool in a suite's episodes; None where they have none. Raises WireError."""
    task = await caller.dispatcher.catalog.draw(suite, None, 0)
    return next((dict(use.spec.params) for use in task.tools if use.uses == _TOOL), None)


async def _answer(caller: Caller, body: Any, params: Mapping[str, Any]) -> Any:
    if isinstance(body, dict) and "queries" not in body and "query" in body:
        asked = read(ZeroSearchIn, body)
        (rows,) = await _found(caller, [asked.query], asked.top_k or _DEFAULT_K, params)
        return [{"text": _contents(row)} for row in rows]
    wanted = read(RetrieveIn, body)
    found = await _found(caller, wanted.queries, wanted.topk or _DEFAULT_K, params)
    if wanted.return_scores:
        shape = [[{"document": _document(row), "score": row["score"]} for row in rows] for rows in found]
    elif wanted.return_scores is None and wanted.topk is None:
        shape = [[{"document": {"contents": _contents(row)}} for row in rows] for rows in found]
    else:
        shape = [[_document(row) for row in rows] for rows in found]
    return {"result": shape}


async def _found(
    caller: Caller, queries: Sequence[str], k: int, params: Mapping[str, Any]
) -> list[list[dict[str, Any]]]:
    """The passages of each query; none for one that cannot be searched for, since clients index the list.

    Raises:
        WireError: 422 `invalid`: the batch is too large.
    """
    factory = cast(_Retriever, await caller.dispatcher.workbench.factory(_TOOL))
    if len(queries) * k > _MOST_PASSAGES:
        raise WireError("invalid", 422, f"{len(queries)} queries of {k} passages; at most {_MOST_PASSAGES} in a batch")
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(query: str) -> list[dict[str, Any]]:
        async with slots:
            try:
                return await factory.retrieve(query, k, params)
            except UserError:
                return []

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(query)) for query in queries]
    return [task.result() for task in tasks]


def _contents(row: Mapping[str, Any]) -> str:
    return f'"{row["title"]}"\n{row["text"]}'


def _document(row: Mapping[str, Any]) -> dict[str, str]:
    return {"id": row["id"], "contents": _contents(row)}


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=dumps(value), status=status, content_type=JSON, headers=headers)
