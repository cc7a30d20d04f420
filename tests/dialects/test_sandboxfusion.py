"""SandboxFusion's own client runs programs in real boxes of their own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.languages import store
from tests.dialects.peers import said_by
from tests.sandboxes.boxes import need_jail
from tests.served import served

ROOT = Path(__file__).parents[2]
C = ("gcc", "libc6-dev")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    need_jail()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTHUB_IMAGES", str(ROOT / ".cache" / "images"))
        suite = ROOT / "tasks" / "languages.yaml"
        with served(suite, tmp_path_factory.mktemp("hub"), "--memory-mb", "64") as url:
            yield f"{url}/sandboxfusion"


async def results(url: str, *requests: dict[str, Any]) -> list[Any]:
    return await said_by("sandboxfusion", url, *(json.dumps({"language": "python", **row}) for row in requests))


async def test_the_real_client_runs_python(url: str, sandboxfusion: str) -> None:
    files = {"in.txt": base64.b64encode(b"a").decode()}
    good, raised, late, exits, written, unknown = await results(
        url,
        {"code": "print(input() + '!')", "stdin": "hi"},
        {"code": "import sys\nprint(1)\nprint(2, file=sys.stderr)\n1 / 0"},
        {"code": "print(1, flush=True)\nwhile True: pass", "run_timeout": 0.5},
        {"code": "import os\nos._exit(3)"},
        {"code": "open('out.txt', 'w').write(open('in.txt').read() * 3)", "files": files, "fetch_files": ["out.txt"]},
        {"code": "", "language": "racket"},
    )
    assert good["status"] == "Success" and good["run_result"]["stdout"] == "hi!\n"
    assert good["compile_result"] is None and good["run_result"]["return_code"] == 0
    assert raised["status"] == "Failed" and raised["run_result"]["return_code"] == 1
    assert raised["run_result"]["stdout"] == "1\n"
    assert raised["run_result"]["stderr"].startswith("2\nTraceback")
    assert 'File "<solution>", line 4' in raised["run_result"]["stderr"]
    assert raised["run_result"]["stderr"].endswith("ZeroDivisionError: division by zero\n")
    assert late["status"] == "Failed" and late["run_result"]["status"] == "TimeLimitExceeded"
    assert late["run_result"]["stdout"] == "1\n"
    assert exits["run_result"]["return_code"] == 3
    assert base64.b64decode(written["files"]["out.txt"]) == b"aaa"
    assert "422" in unknown["raised"] and "expected one of c, lua, python" in unknown["raised"]


async def test_no_program_finds_what_another_left(url: str, sandboxfusion: str) -> None:
    left, found = await results(url, {"code": "open('x', 'w').write('1')"}, {"code": "print(open('x').read())"})
    assert left["status"] == "Success"
    assert found["status"] == "Failed" and "FileNotFoundError" in found["run_result"]["stderr"]


async def post(url: str, **body: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/run_code", json=body) as response:
        return response.status, await response.json()


async def test_other_languages_are_those_of_the_suites(url: str) -> None:
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("installing languages for the jail needs root and mmdebstrap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTHUB_IMAGES", str(ROOT / ".cache" / "images"))
        await asyncio.to_thread(store.build, C)
    _, good = await post(url, code='#include <stdio.h>\nint main() { puts("hi"); return 2; }', language="c")
    assert good["compile_result"]["return_code"] == 0
    assert good["run_result"]["stdout"] == "hi\n" and good["run_result"]["return_code"] == 2
    _, broken = await post(url, code="int main() {", language="c")
    assert broken["status"] == "Failed" and broken["run_result"] is None
    assert "main.c:1" in broken["compile_result"]["stderr"]


async def test_what_is_wrong_with_a_request_is_said_as_theirs_says_it(url: str) -> None:
    status, refused = await post(url, language="python", run_timeout=0)
    assert status == 422
    assert {row["loc"][1] for row in refused["detail"]} == {"code", "run_timeout"}
    status, refused = await post(url, code="", language="python", files={"a": "%"})
    assert status == 422 and refused["detail"][0]["loc"] == ["body", "files.a"]
    status, refused = await post(url, code="", language="python", files={"../a": ""})
    assert status == 422


async def test_a_full_hub_refuses_and_gives_back_what_it_promised(url: str) -> None:
    rows = await asyncio.gather(*(post(url, code="import time; time.sleep(0.5)", language="python") for _ in range(12)))
    assert {status for status, _ in rows} <= {200, 429}
    assert sum(status == 200 for status, _ in rows) >= 64 // SandboxSpec().request_mb
    assert (await post(url, code="", language="python"))[0] == 200
