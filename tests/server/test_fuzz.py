"""Anything at all over the WebSocket and as a batch: an answer or a refusal, never a 500, and the hub goes on."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import struct
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agenthub.errors import WireError
from agenthub.server.operations import OPERATIONS
from agenthub.server.params import parse_json
from tests.server.background import background_hub
from tests.server.harness import CALL, MAX_BODY, RunningHub, winning

LONG_S = 30.0
EPISODE = "the episode"
"""Stands for the id of an episode that lives."""

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12)
names = st.sampled_from([*OPERATIONS, "ping", "", "\ud800", "STEP"])
fields = sorted({field for model in OPERATIONS.values() for field in model.model_fields})
values = st.recursive(
    scalars | st.sampled_from([EPISODE, "fakes", "t0", CALL, winning(), "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(fields), inner, max_size=3),
    max_leaves=6,
)
ids: st.SearchStrategy[Any] = (
    st.integers(-5, 5) | st.text(max_size=4) | st.sampled_from([None, True, 1.5, [], {}, "x" * 201, 10**300])
)
good = st.sampled_from(
    [
        {"op": "suites"},
        {"op": "step", "episode": EPISODE, "turn": 0, "action": CALL},
        {"op": "state", "episode": EPISODE},
        {"op": "lease", "episode": EPISODE, "lease_s": 60},
        {"op": "tasks", "suite": "fakes", "limit": 1},
        {"op": "steps", "steps": [{"episode": EPISODE, "turn": 0, "action": CALL}], "deadline_s": 0.01},
        {"op": "blob_put", "sha256": "0" * 64, "data": "!!!"},
    ]
)
known = st.builds(lambda identity, row: {"id": identity, **row}, ids, good)
near = st.builds(lambda row, key, value: {**row, key: value}, known, st.sampled_from([*fields, "id", "op"]), values)
odd = st.fixed_dictionaries({}, optional={"id": ids, "op": names | values, **{name: values for name in fields[:12]}})
rows = known | near | odd | values | st.lists(known | near | values, max_size=5)


def texts(row: Any) -> str:
    """JSON as a careless client writes it: NaN and lone surrogates included."""
    return json.dumps(row)


nested = st.builds(
    lambda depth, opening: opening * depth, st.integers(1, 5000), st.sampled_from(["[", '{"a":', '{"id":1,"op":["'])
)
text_frames = (
    st.builds(texts, rows)
    | st.builds(lambda row, end: texts(row)[:end], rows, st.integers(0, 60))
    | nested
    | st.text(max_size=40)
    | st.just('{"id":1,"id":2,"op":"suites","op":"suite"}')
    | st.just('{"id":1,"op":"suite","suite":"' + "x" * 300_000 + '"}')
    | st.just('{"id":1,"op":"step","turn":' + "9" * 5000 + "}")
)
frames = text_frames | st.binary(max_size=60)


_numbers = itertools.count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with background_hub(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


async def opened(served: RunningHub, session: aiohttp.ClientSession) -> str:
    """An episode that lives."""
    asked = {"request_id": f"r{next(_numbers)}", "suite": "fakes", "task": "long"}
    async with session.post(f"{served.url}/v1/episodes", json=asked) as response:
        return str((await response.json())["episodes"][0]["id"])


async def well(served: RunningHub, session: aiohttp.ClientSession, episode: str) -> None:
    """The hub answers, its episode goes on, and no bug was counted."""
    async with session.get(f"{served.url}/v1/episodes/{episode}") as response:
        assert response.status == 200 and not (await response.json())["done"]
    async with session.get(f"{served.url}/metrics") as response:
        assert 'code="internal"' not in await response.text()
    async with session.delete(f"{served.url}/v1/episodes/{episode}") as response:
        assert response.status == 200


def play(example: Coroutine[Any, Any, None]) -> None:
    """Run one example; it hangs where it takes longer than a slow machine needs."""
    asyncio.run(asyncio.wait_for(example, LONG_S))


def examples(fewest: int) -> settings:
    """As many as the environment asks for: AGENTHUB_FUZZ times the fewest."""
    return settings(
        max_examples=fewest * int(os.environ.get("AGENTHUB_FUZZ", "1")),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def requests_of(frame: bytes) -> int:
    """How many answers a text frame is owed: one for each request of a list, else one."""
    try:
        values = parse_json(frame)
    except WireError:
        return 1
    return len(values) if isinstance(values, list) and 1 <= len(values) <= 4096 else 1


def sound(row: dict[str, Any]) -> bool:
    """True for an answer, False for a line of a batch; neither is a bug of the hub's."""
    if "line" in row:
        assert row["line"].get("status", 200) != 500, row
        return False
    assert row["status"] != 500, row
    assert ("result" in row) != ("error" in row)
    return True


@examples(150)
@given(st.lists(frames, min_size=1, max_size=12))
def test_any_frames_are_each_answered_and_none_is_a_bug(served: RunningHub, sent: Sequence[str | bytes]) -> None:
    async def any_frames() -> None:
        async with aiohttp.ClientSession() as session:
            episode = await opened(served, session)
            async with session.ws_connect(f"{served.url}/v1/ws") as socket:
                wanted = 0
                for data in sent:
                    if isinstance(data, bytes):
                        wanted += 1
                        await socket.send_bytes(data)
                    else:
                        frame = data.replace(EPISODE, episode).encode("utf-8", "replace")
                        wanted += requests_of(frame)
                        await socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
                await socket.send_json({"id": "the last", "op": "state", "episode": episode})
                answered: list[dict[str, Any]] = []
                while len(answered) <= wanted:
                    row = await socket.receive_json(timeout=LONG_S)
                    answered += [it for it in (row if isinstance(row, list) else [row]) if sound(it)]
                assert [it["status"] for it in answered if it["id"] == "the last"] == [200]
            await well(served, session, episode)

    play(any_frames())


broken_frames = st.sampled_from(
    [
        b"\x81\xff" + struct.pack(">Q", 1 << 62) + b"\0\0\0\0",  # a length that nothing has
        b"\x81\xfe\xff\xff\0\0\0\0{",  # half a frame, then the end
        b"\x01\x81\0\0\0\0{" + b"\x00\x80\0\0\0\0" * 40,  # pieces without end
        b"\x80\x80\0\0\0\0",  # goes on with nothing
        b"\xf1\x80\0\0\0\0",  # reserved bits
        b"\x83\x80\0\0\0\0",  # an opcode that is none
        b"\x89\xfe\x01\x00\0\0\0\0" + b"x" * 256,  # a ping that is too long
        b"\x81\x02{}",  # not masked
        b"\x81\x82\0\0\0\0\xff\xfe",  # not UTF-8
        b"\x88\x81\0\0\0\0\x03",  # half a close code
        b"\x88\x82\0\0\0\0\xff\xff",  # a close code that is none
        b"GET /v1/ws HTTP/1.1\r\n\r\n",
    ]
)
UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


@examples(60)
@given(st.lists(broken_frames | st.binary(max_size=30), min_size=1, max_size=4))
def test_what_is_no_websocket_ends_its_connection_at_most(served: RunningHub, sent: Sequence[bytes]) -> None:
    async def no_frames() -> None:
        async with aiohttp.ClientSession() as session:
            episode = await opened(served, session)
            host, port = served.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(UPGRADE)
            await reader.readuntil(b"\r\n\r\n")
            for data in sent:
                writer.write(data)
            try:
                writer.write_eof()
                while await reader.read(1 << 16):
                    pass
            except OSError:
                pass
            writer.close()
            await well(served, session, episode)

    play(no_frames())


steps = st.lists(
    st.fixed_dictionaries(
        {"episode": st.just(EPISODE) | values, "turn": st.integers(-1, 3) | values, "action": st.just(CALL) | values},
        optional={"timeout_s": values, "generation": values, "more": values},
    )
    | values,
    max_size=6,
)
bodies = (
    st.builds(lambda rows, late: texts({"steps": rows, "deadline_s": late}).encode(), steps, st.just(0.05) | values)
    | st.builds(lambda row, end: texts({"steps": row})[:end].encode(), steps, st.integers(0, 80))
    | st.builds(lambda row: texts(row).encode(), rows)
    | st.builds(str.encode, nested)
    | st.binary(max_size=60)
    | st.just(b"[" * (MAX_BODY + 1))
)


@examples(150)
@given(st.lists(bodies, min_size=1, max_size=4))
def test_any_batch_is_answered_line_by_line_or_refused_whole(served: RunningHub, sent: Sequence[bytes]) -> None:
    async def any_batches() -> None:
        async with aiohttp.ClientSession() as session:
            episode = await opened(served, session)
            for data in sent:
                data = data.replace(EPISODE.encode(), episode.encode())
                async with session.post(f"{served.url}/v1/steps", data=data) as response:
                    lines = [json.loads(line) for line in (await response.read()).splitlines()]
                if response.status == 200:
                    assert len(lines) == len(json.loads(data)["steps"])
                    assert all(line.get("status", 200) != 500 for line in lines)
                else:
                    assert response.status in (400, 413, 422) and "error" in lines[0]
            await well(served, session, episode)

    play(any_batches())
