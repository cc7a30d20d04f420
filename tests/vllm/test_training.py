"""`agenthub train` over a real vLLM: as good as the embedded policy, in turn and ahead, and exact over a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agenthub.policies.vllm_server import INTERPRETER, Engine, Running
from tests.vllm.runs import command, entered, rows, run, trained

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_training_over_vllm_starts_where_the_embedded_policy_does_and_stays_exact(
    engine: Engine, running: Running, tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as both:
        ran = both.submit(run, tmp_path / "vllm", engine, policy__uses="vllm", policy__vllm__url=running.url)
        both.submit(run, tmp_path / "embedded", engine, updates=0).result()
        ran.result()
    ours, theirs = rows(tmp_path / "vllm"), rows(tmp_path / "embedded")
    assert ours[0]["eval"] == theirs[0]["eval"]
    updates = [row for row in ours if "eval" not in row]
    assert [row["update"] for row in updates] == [1, 2, 3]
    assert all(row["parity_error"] < 1e-4 for row in updates)
    assert entered(tmp_path / "vllm", 3) == trained(tmp_path / "vllm")


@pytest.mark.slow
def test_an_adapter_trains_and_is_served_without_a_merge(engine: Engine, tmp_path: Path) -> None:
    run(tmp_path / "run", engine, policy__uses="vllm", policy__lora__rank=4, updates=2, eval="null")
    updates = rows(tmp_path / "run")
    assert [row["update"] for row in updates] == [1, 2]
    assert all(row["parity_error"] < 1e-4 for row in updates)


@pytest.mark.slow
def test_a_server_that_is_killed_stops_the_run_with_its_reason_and_the_run_goes_on_without_a_gap(
    engine: Engine, running: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    environment = {**os.environ, INTERPRETER: engine.python}
    started = command(folder, policy__uses="vllm", staleness=2, updates=400, eval="null")
    process = subprocess.Popen(started, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and process.poll() is None:
            if (folder / "metrics.jsonl").is_file() and len(rows_so_far(folder)) >= 3:
                break
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()[0][-2000:]
        os.kill(server_of(process.pid), signal.SIGKILL)
        said = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode not in (0, None)
    assert "the vLLM server ended with status -9" in " ".join(said.split())
    done = max((row["update"] for row in rows_so_far(folder)), default=0)
    resumed = [sys.executable, "-m", "agenthub", "train", "--resume", "--out", str(folder)]
    again = subprocess.run(
        # A server that is there already: the folder says what was trained, the checkpoint with which weights.
        [*resumed, "--set", f"updates={done + 2}", "--set", f"policy.vllm.url={running.url}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stdout[-1500:] + again.stderr[-1500:]
    assert [row["update"] for row in rows(folder) if "eval" not in row] == list(range(1, done + 3))
    assert entered(folder, done + 2) == trained(folder)


def rows_so_far(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of updates, of a file that may still grow."""
    text = (folder / "metrics.jsonl").read_text()
    found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [row for row in found if "eval" not in row]


def server_of(trainer: int) -> int:
    """Process id of the vLLM server that a trainer started."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            arguments = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == trainer and b"vllm.entrypoints" in arguments:
            return int(entry.name)
    raise AssertionError("the trainer has no vLLM server")
