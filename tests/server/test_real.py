"""The whole way with the real command, suite and jail; nothing is left of a hub that was stopped or killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from agenthub.client import Hub
from tests.server.processes import ROOT


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "agenthub", "serve", "--tasks", str(ROOT / "tasks" / "arithmetic.yaml")]
    command += ["--port", "0", "--log", str(folder / "log.sqlite"), "--ready-fd", str(writer), "--grace-s", "0"]
    process = subprocess.Popen(command, cwd=ROOT, pass_fds=(writer,), stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            line = ready.readline()
        if not line:
            pytest.fail(f"agenthub serve ended with status {process.wait()}")
        yield process, json.loads(line)["url"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_model_written_code_runs_and_no_process_is_left(tmp_path: Path, number: signal.Signals) -> None:
    with served(tmp_path) as (process, url):
        async with Hub(url, retry_s=20) as client:
            episodes = await client.create("arithmetic", seed=1, count=4)
            done = await asyncio.gather(*(it.step("```python\nx = 6 * 7\nx\n```") for it in episodes))
            assert ["42" in it.observation["text"] for it in done] == [True] * 4
            busy = [asyncio.create_task(it.step("```python\nwhile True: pass\n```")) for it in episodes[:2]]
            await asyncio.sleep(0.2)
            family = psutil.Process(process.pid).children(recursive=True)
            assert family
            process.send_signal(number)
            process.wait(5)
            _, left = psutil.wait_procs(family, timeout=5)
            # An orphan's exit status is init's to collect; what is left then is a line in a table.
            assert not [it for it in left if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
