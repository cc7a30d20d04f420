"""The log and the spans: what they say of a request, that no token is in them, and that no client forges a line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.test_utils import RawTestServer as TestServer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agenthub.server.logs import LogFormat, LogLevel, logged
from agenthub.server.tracing import Tracing, tracing_from_environment
from tests.server.faces import FACES, Routes
from tests.server.harness import CALL
from tests.server.tenants import TOKENS, tenants


@contextmanager
def written(form: LogFormat, level: LogLevel) -> Iterator[io.StringIO]:
    """What the hub's log says inside."""
    stream = io.StringIO()
    with redirect_stderr(stream), logged(form, level):
        yield stream


def rows(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("name", FACES)
async def test_each_request_is_a_line_with_its_ids_and_never_the_token(tmp_path: Path, name: str) -> None:
    with written("json", "debug") as stream:
        async with tenants(tmp_path) as served, FACES[name](served.url, TOKENS["alice"]) as alice:
            _, made = await alice.call("create", request_id="r", suite="fakes", task="t0")
            episode = made["episodes"][0]["id"]
            await alice.call("step", episode=episode, turn=0, action=CALL)
            await alice.call("step", episode=episode, turn=5, action=CALL)
        found = [row for row in rows(stream) if row.get("episode") == episode]
    step, wrong = found[0], found[1]
    assert (step["op"], step["level"], step["token"], step["turn"]) == ("step", "debug", "alice", 0)
    assert step["request_id"] and step["seconds"] >= 0
    assert (wrong["level"], wrong["status"], wrong["code"]) == ("info", 409, "turn_order")
    assert TOKENS["alice"] not in stream.getvalue()


async def test_who_may_not_come_in_is_a_warning_and_a_clients_slip_is_not(tmp_path: Path) -> None:
    with written("json", "warning") as stream:
        async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:
            wrong = {"Authorization": "Bearer not-the-token-of-anyone"}
            async with session.get(f"{served.url}/v1/suites", headers=wrong):
                pass
            async with Routes(served.url, TOKENS["alice"]) as alice:
                await alice.call("quarantine")
                await alice.call("suite", suite="nothing")
    assert [(row["level"], row["status"]) for row in rows(stream)] == [("warning", 401), ("warning", 403)]
    assert "not-the-token" not in stream.getvalue()


async def test_a_requests_own_id_is_kept_where_it_is_sane(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:
        ids = []
        for given in ("abc-123/4", "no good", "x" * 129, None, "ä"):
            headers = {"Authorization": f"Bearer {TOKENS['alice']}"} | ({"X-Request-Id": given} if given else {})
            for path in ("/v1/suites", "/nothing", "/healthz"):
                async with session.get(served.url + path, headers=headers) as response:
                    ids.append((given, response.headers["X-Request-Id"]))
        assert all(shown == given for given, shown in ids if given == "abc-123/4")
        made = [shown for given, shown in ids if given != "abc-123/4"]
        assert len(set(made)) == len(made) == 12 and all(len(shown) < 40 for shown in made)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_client_forges_a_line(form: LogFormat) -> None:
    with written(form, "info") as stream:
        logging.getLogger("agenthub.requests").info("evil\n2026 WARNING forged\x1b[2J", extra={"facts": {"op": "a\nb"}})
        assert stream.getvalue().count("\n") == 1 and "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("error", [BadHttpMessage("no Host"), ConnectionResetError("gone")])
def test_a_client_that_speaks_no_http_or_goes_away_writes_no_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged("text", "warning"):
        logging.getLogger("aiohttp.server").error("Error handling request", exc_info=error)
        logging.getLogger("aiohttp.server").error("Error handling request", exc_info=ValueError("a bug"))
    said = capsys.readouterr().err
    assert str(error) not in said
    assert "ValueError: a bug" in said


def test_the_log_is_as_it_was_afterwards_and_a_reader_that_is_gone_stops_nothing() -> None:
    before = [logging.getLogger(name).handlers[:] for name in ("agenthub", "aiohttp", "asyncio")]
    with written("json", "info") as stream:
        logging.getLogger("asyncio").warning("slow")
        stream.close()
        logging.getLogger("agenthub").error("unheard")
    assert [logging.getLogger(name).handlers for name in ("agenthub", "aiohttp", "asyncio")] == before


async def test_operations_are_spans_under_the_callers_trace(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:
        served.hub.dispatcher.journal.tracing = Tracing(provider)
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers = {"Authorization": f"Bearer {TOKENS['alice']}", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        asked = {"request_id": "r", "suite": "fakes", "task": "t0"}
        async with session.post(f"{served.url}/v1/episodes", json=asked, headers=headers) as response:
            episode = (await response.json())["episodes"][0]["id"]
        step = {"turn": 3, "action": CALL}
        async with session.post(f"{served.url}/v1/episodes/{episode}/step", json=step, headers=headers) as response:
            assert response.status == 409
        async with Routes(served.url, TOKENS["bob"]) as bob:
            await bob.call("suites")
        await served.hub.dispatcher.journal.tracing.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"agenthub.create", "agenthub.step", "agenthub.suites"}
    for name in ("agenthub.create", "agenthub.step"):
        context = spans[name].context
        assert context is not None and f"{context.trace_id:032x}" == trace
    attributes = spans["agenthub.step"].attributes
    assert attributes is not None
    assert (attributes["agenthub.token"], attributes["agenthub.episode"]) == ("alice", episode)
    assert not spans["agenthub.step"].status.is_ok
    assert spans["agenthub.suites"].parent is None


async def test_spans_are_sent_where_the_environment_says_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert tracing_from_environment() is None
    sent: list[tuple[str, bytes]] = []

    async def collector(request: web.BaseRequest) -> web.Response:
        sent.append((request.path, await request.read()))
        return web.Response()

    async with TestServer(collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(server.make_url("/")).rstrip("/"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        tracing = tracing_from_environment()
        assert tracing is not None
        with tracing.span("step", {"episode": "ep-1"}):
            pass
        await tracing.close()
    assert [path for path, _ in sent] == ["/v1/traces"]
    assert b"agenthub.step" in sent[0][1] and b"ep-1" in sent[0][1]
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing_from_environment() is None
