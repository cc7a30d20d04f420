"""Whatever a body says, a dialect's route answers it: never with a bug, and never by hanging."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.test_mcp import INITIALIZE
from tests.dialects.test_openenv import VALUES
from tests.server.harness import hub

METHODS = st.sampled_from(["initialize", "ping", "tools/list", "tools/call", "openenv/session/create", "x"])
PARAMS = st.dictionaries(
    st.sampled_from(["name", "arguments", "session_id", "task", "seed", "protocolVersion"]),
    VALUES | st.sampled_from(["t0", "python", "submit_answer", {"code": "x"}, {"answer": "42"}]),
    max_size=3,
)
RPC = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | VALUES, "method": METHODS | VALUES, "params": PARAMS | VALUES}, optional={"id": VALUES}
)
STEP = st.fixed_dictionaries(
    {"episode_id": st.just("a") | VALUES, "action": PARAMS | st.dictionaries(st.sampled_from(["text", "type"]), VALUES)}
)
RUN = st.fixed_dictionaries(
    {"code": VALUES, "language": st.sampled_from(["cobol", ""]) | VALUES},
    optional={"files": VALUES, "run_timeout": VALUES, "memory_limit_MB": VALUES, "stdin": VALUES},
)
REQUESTS = st.lists(
    st.one_of(
        st.tuples(st.just("mcp/fakes"), RPC | VALUES),
        st.tuples(st.just("openenv/fakes/mcp"), RPC | VALUES),
        st.tuples(st.just("openenv/fakes/reset"), PARAMS | VALUES),
        st.tuples(st.just("openenv/fakes/step"), STEP | VALUES),
        st.tuples(st.just("openenv/fakes/fakes/task_range"), st.dictionaries(st.just("start"), VALUES)),
        st.tuples(st.just("sandboxfusion/run_code"), RUN | VALUES),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=25)
@given(requests=REQUESTS)
def test_no_body_is_a_bug(requests: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    async def play() -> list[tuple[int, str]]:
        async with hub(tmp_path_factory.mktemp("hub")) as served, aiohttp.ClientSession() as http:
            async with http.post(f"{served.url}/mcp/fakes?task=t0", json=INITIALIZE) as response:
                headers = {"Mcp-Session-Id": response.headers["Mcp-Session-Id"]}
            await http.post(f"{served.url}/openenv/fakes/reset", json={"task": "t0", "episode_id": "a"})
            answers = []
            for path, body in requests:
                async with http.post(f"{served.url}/{path}", json=body, headers=headers) as response:
                    answers.append((response.status, await response.text()))
            return answers

    for status, text in asyncio.run(play()):
        # 503: the suite has a task whose box cannot be started.
        assert status < 500 or (status == 503 and "no box could be started" in text), text
        assert '"internal"' not in text, text
