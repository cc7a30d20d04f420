"""One real vLLM for the whole area: started once on a CPU, for the tiny policy of the package."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from agenthub.policies.embedded import TINY, load_model
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_server import Engine, Running, VllmServer, vllm_server
from agenthub.trainers.sync.directory import start_directory

ROOT = Path(__file__).parents[2]
_NOT_HERE = 3


@functools.cache
def engine_here() -> Engine | str:
    """vLLM in an environment of its own, installed once; or why it cannot be had."""
    script = str(ROOT / "scripts" / "peer-environment")
    done = subprocess.run([sys.executable, script, "vllm"], capture_output=True, text=True, check=False)
    if done.returncode == _NOT_HERE:
        return done.stderr.strip()
    assert done.returncode == 0, done.stderr
    return Engine(python=done.stdout.strip(), version="0.32.0+cpu", device="cpu")


@pytest.fixture(scope="session")
def engine() -> Engine:
    found = engine_here()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="package")  # an idle server of a CPU takes half a core
def running(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The server, in a loop of its own that outlives each test's; it takes adapters, and weights over gloo."""
    folder = tmp_path_factory.mktemp("vllm")
    base = start_directory(load_model(TINY)[0], TINY, folder / "base", untie=True)
    gloo = (
        "--worker-extension-cls",
        "tests.vllm.gloo_engine.Extension",
        "--weight-transfer-config",
        '{"backend":"gloo"}',
    )
    server = VllmServer(model=base, max_num_seqs=32, lora_rank=8, extra=gloo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with _in_a_loop(server, folder / "vllm.log", engine) as running:
            yield running


class _in_a_loop:
    """A server whose event loop runs in a thread."""

    def __init__(self, server: VllmServer, log: Path, engine: Engine) -> None:
        self._arguments: tuple[Any, ...] = (server, log, engine)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._up: Future[Running] = Future()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Running:
        self._thread.start()
        return self._up.result()

    def __exit__(self, *ignored: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server, log, engine = self._arguments
        try:
            async with vllm_server(server, log=log, engine=engine) as running:
                self._up.set_result(running)
                await self._stop.wait()
        except BaseException as error:
            if self._up.done():
                raise
            self._up.set_exception(error)


@pytest.fixture
async def policy(running: Running) -> AsyncIterator[VllmPolicy]:
    made = VllmPolicy(running.url, in_flight=32, entropy_top_k=20, ended=running.ended)
    await made.attach()
    yield made
    await made.close()
