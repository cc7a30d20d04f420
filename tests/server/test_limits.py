"""Slow, large and many clients: each is cut off in time, and the hub answers the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from agenthub.server.door import MAX_FIELD, MAX_FIELDS, MAX_LINE, Patience
from tests.server.harness import MAX_BODY, RunningHub, hub, until
from tests.server.loops import LOOPS

QUICK = Patience(head_s=0.3, body_s=0.3, unread_s=0.5, idle_s=0.5, max_connections=3, max_unread=1 << 20)
LONG_S = 20.0


@pytest.fixture(scope="module", params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Both loops that `agenthub serve` may run on."""
    return cast(asyncio.AbstractEventLoopPolicy, request.param())


@asynccontextmanager
async def raw(served: RunningHub, **options: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A plain connection."""
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answers(served: RunningHub) -> None:
    """The hub is well."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONG_S)) as session,
        session.get(f"{served.url}/v1/suites") as response,
    ):
        assert response.status == 200


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the hub closes; a reset is an end too."""
    found = b""
    try:
        async with asyncio.timeout(LONG_S):
            while more := await reader.read(1 << 16):
                found += more
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("sent", [b"", b"GET /v1/su", b"GET /v1/suites HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_head_that_does_not_come_is_not_waited_for(tmp_path: Path, sent: bytes) -> None:
    async with hub(tmp_path, patience=QUICK) as served, raw(served) as (reader, writer):
        writer.write(sent)
        assert await rest(reader) == b""
        await answers(served)


async def test_a_head_that_drips_after_a_whole_request_is_not_waited_for_either(tmp_path: Path) -> None:
    async with hub(tmp_path, patience=QUICK) as served, raw(served) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n")
        writer.write(b"GET /healthz HTTP/1.1\r\nHo")
        assert (await rest(reader)).endswith(b"ok\n")
        await answers(served)


async def test_a_body_that_does_not_come_is_408_and_nothing_is_done(tmp_path: Path) -> None:
    async with hub(tmp_path, patience=QUICK) as served, raw(served) as (reader, writer):
        body = json.dumps({"request_id": "r", "suite": "fakes", "task": "t0"}).encode()
        head = f"POST /v1/episodes HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:-1])
        found = await rest(reader)
        assert b" 408 " in found and b'"slow_body"' in found
        assert len(served.dispatcher.table) == 0
        await answers(served)


async def test_a_client_that_vanishes_in_the_middle_of_a_body_leaves_nothing(tmp_path: Path) -> None:
    async with hub(tmp_path) as served:
        async with raw(served) as (_, writer):
            writer.write(b"POST /v1/episodes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
            await writer.drain()
        await answers(served)
        assert len(served.dispatcher.table) == 0


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * MAX_LINE + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (MAX_FIELD + 1) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * (MAX_FIELDS + 1) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["line", "field", "fields", "tls", "smuggled"],
)
async def test_a_head_that_is_too_large_or_no_http_is_400(tmp_path: Path, head: bytes) -> None:
    async with hub(tmp_path) as served, raw(served) as (reader, writer):
        writer.write(head)
        assert b" 400 " in await rest(reader)
        await answers(served)


async def test_a_body_over_the_limit_is_413_packed_or_not(tmp_path: Path) -> None:
    import zlib

    async with hub(tmp_path) as served, aiohttp.ClientSession() as session:
        large = b" " * (MAX_BODY + 1)
        for data, headers in ((large, {}), (zlib.compress(large), {"Content-Encoding": "deflate"})):
            async with session.post(f"{served.url}/v1/steps", data=data, headers=headers) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")
        async with session.ws_connect(f"{served.url}/v1/ws") as socket:
            await socket.send_str(" " * (MAX_BODY + 1))
            assert (await socket.receive(timeout=LONG_S)).data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await answers(served)


async def test_a_websocket_that_does_not_read_is_cut_off_and_what_it_began_goes_on(tmp_path: Path) -> None:
    async with hub(tmp_path, patience=QUICK) as served, raw(served, limit=1 << 10) as (reader, writer):
        writer.write(
            b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame({"id": 0, "op": "create", "request_id": "r", "suite": "fakes", "task": "long"}))
        await until(lambda: len(served.dispatcher.table) == 1)
        try:
            async with asyncio.timeout(LONG_S):
                while not writer.transport.is_closing():
                    writer.write(frame({"id": 1, "op": "tasks", "suite": "fakes", "limit": 1000}))
                    await asyncio.sleep(0)  # reads nothing
        except ConnectionError:
            pass
        assert len(served.dispatcher.table) == 1
        await answers(served)


def frame(row: dict[str, object]) -> bytes:
    """A masked text frame; the mask is zero."""
    data = json.dumps(row).encode()
    assert len(data) <= 125
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data


async def test_beyond_the_last_connection_one_is_told_to_come_back(tmp_path: Path) -> None:
    patience = Patience(max_connections=3)
    async with hub(tmp_path, patience=patience) as served:
        async with raw(served) as first, raw(served) as second, raw(served) as third:
            for reader, writer in (first, second, third):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b" 200 " in await reader.readuntil(b"\r\n")
            async with raw(served) as (reader, _):
                found = await rest(reader)
                assert b" 503 " in found and b"Retry-After" in found
            first[1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await first[0].readuntil(b"ok\n")
        async with aiohttp.ClientSession() as session:
            for _ in range(200):
                async with session.get(f"{served.url}/healthz") as response:
                    if response.status == 200:
                        return
            raise AssertionError("closed connections are not given back")


async def test_what_a_websocket_does_not_read_is_bounded_before_any_clock_says_so(tmp_path: Path) -> None:
    patient = Patience(unread_s=600.0, max_unread=1 << 20)
    async with hub(tmp_path, patience=patient) as served, raw(served, limit=1 << 10) as (reader, writer):
        writer.write(
            b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        asked = frame({"id": 1, "op": "tasks", "suite": "fakes", "limit": 1000})
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(LONG_S):
                while not writer.transport.is_closing():
                    writer.write(asked)
                    await writer.drain()
                    await asyncio.sleep(0)  # reads nothing
        await answers(served)
