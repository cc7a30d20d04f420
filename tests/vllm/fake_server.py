"""A server that speaks vLLM's routes and misbehaves on demand. Its tokens follow from the seed alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from aiohttp import web

VOCABULARY = 50
CONTROLS = (
    *("/pause", "/resume", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version"),
    *("/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"),
)


def tokens(seed: int, count: int) -> list[int]:
    """What the fake samples for a seed."""
    return [int(token) for token in np.random.default_rng(seed).integers(1, VOCABULARY, count)]


class FakeVllm:
    """Serves one model; `trouble` is called before each event and may raise or change it."""

    def __init__(self) -> None:
        self.version: str = "default"
        self.engine_version = "0.32.0"
        self.model = "policy"
        self.context = 64
        self.root = "/models/it"
        self.trouble: Callable[[str, int, dict[str, Any]], dict[str, Any] | None] = lambda key, place, event: event
        """(request id, place, event) -> the event to send; None breaks the connection."""
        self.refuse: list[int] = []
        """HTTP statuses of the next requests to generate."""
        self.live = 0
        self.most = 0
        """Most requests at once."""
        self.bodies: list[dict[str, Any]] = []
        self.streaming = asyncio.Event()
        """Set when a stream has sent five tokens."""
        self.log: list[str] = []
        self.resumed = asyncio.Event()
        self.resumed.set()
        self.aborted: set[str] = set()
        self.streams: set[str] = set()
        """Requests that are being answered."""
        self.keeps_prefixes = False
        self.delay_s = 0.0
        self.fails: set[str] = set()
        """Routes that answer with status 500."""
        self.lacks: set[str] = set()
        """Routes that are not there."""
        self.stuck = False
        """It goes on telling its old version."""
        self.updating = False
        """An update was started and not finished."""
        self.init: dict[str, Any] = {}
        self.updates: list[dict[str, Any]] = []

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/weight_info", self._weights)
        app.router.add_post("/inference/v1/generate", self._generate)
        app.router.add_get("/get_world_size", self._world)
        for path in CONTROLS:
            app.router.add_post(path, self._control)
        app.router.add_post("/inference/v1/abort_requests", self._abort)
        return app

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.engine_version})

    async def _models(self, request: web.Request) -> web.Response:
        row = {"id": self.model, "root": self.root, "max_model_len": self.context}
        return web.json_response({"data": [row]})

    async def _weights(self, request: web.Request) -> web.Response:
        return web.json_response({"weight_version": self.version})

    async def _control(self, request: web.Request) -> web.Response:
        if request.path in self.lacks:
            return web.json_response({"detail": "Not Found"}, status=404)
        self.log.append(request.path_qs)
        if request.path in self.fails:
            return web.json_response({"error": {"message": "it broke"}}, status=500)
        body = await request.json() if request.can_read_body else {}
        if request.path == "/start_weight_update":
            if self.updating:
                return web.json_response({"error": {"message": "a weight update is already active"}}, status=500)
            self.updating = True
        if request.path == "/finish_weight_update":
            self.updating = False
        if request.path == "/pause":
            self.resumed.clear()
            if request.query["mode"] == "abort":
                self.aborted |= self.streams
        elif request.path == "/resume":
            self.resumed.set()
        elif request.path == "/init_weight_transfer_engine":
            self.init = body["init_info"]
        elif request.path == "/update_weights":
            self.updates.append(body["update_info"])
        elif request.path in ("/update_weight_version", "/finish_weight_update") and not self.stuck:
            self.version = body.get("new_version") or body.get("weight_version") or self.version
        elif request.path == "/reset_prefix_cache":
            return web.json_response({"success": not self.keeps_prefixes})
        return web.json_response({})

    async def _world(self, request: web.Request) -> web.Response:
        return web.json_response({"world_size": 2})

    async def _abort(self, request: web.Request) -> web.Response:
        self.aborted |= set((await request.json())["request_ids"])
        return web.Response()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            return web.json_response({"error": {"message": "not now"}}, status=self.refuse.pop(0))
        body = await request.json()
        self.bodies.append(body)
        self.live += 1
        self.most = max(self.most, self.live)
        try:
            return await self._stream(request, body)
        finally:
            self.live -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        sampling, key = body["sampling_params"], f"fake-{body['request_id']}"
        self.streams.add(key)
        ids = tokens(sampling["seed"], sampling["max_tokens"])
        spans: list[dict[str, Any]] = []
        for place, token in enumerate(ids):
            await self.resumed.wait()
            await asyncio.sleep(self.delay_s)
            if not spans or spans[-1]["version"] != self.version:
                spans.append({"version": self.version, "start": place})
            stop = token in sampling["stop_token_ids"]
            reason = "abort" if key in self.aborted else "stop" if stop else None
            reason = reason or ("length" if place == len(ids) - 1 else None)
            event = _event(key, [] if reason == "abort" else [token], reason, spans)
            if place == 0:
                event["prompt_token_ids"] = body["token_ids"]
            sent = self.trouble(key, place, event)
            if sent is None:
                assert request.transport is not None
                request.transport.close()
                return answer
            await answer.write(b"data: " + json.dumps(sent).encode() + b"\n\n")
            if place == 4:
                self.streaming.set()
            if reason is not None:
                break
        self.streams.discard(key)
        await answer.write(b"data: [DONE]\n\n")
        return answer


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[FakeVllm, str]]:
    """A fake and its address."""
    fake = FakeVllm()
    runner = web.AppRunner(fake.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield fake, f"http://127.0.0.1:{port}"
    finally:
        fake.resumed.set()
        await runner.cleanup()


def _event(key: str, ids: list[int], reason: str | None, spans: list[dict[str, Any]]) -> dict[str, Any]:
    content = [
        {"token_id": token, "logprob": -0.5, "top_logprobs": [{"token_id": token, "logprob": -0.5}]} for token in ids
    ]
    choice = {"token_ids": ids, "finish_reason": reason, "logprobs": {"content": content}}
    return {"request_id": key, "choices": [choice | {"weight_versions": spans if reason else None}]}
