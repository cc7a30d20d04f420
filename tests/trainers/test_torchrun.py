"""`agenthub train` under torchrun: one of two processes is killed, the run stops and says so, and resumes exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from agenthub.trainers.checkpoint import Checkpoints
from agenthub.trainers.metrics import without_times

ROOT = Path(__file__).parents[2]
SETTINGS = ("updates=4", "rollout.groups=2", "checkpoint_every=2", "eval=null", "optim.threads=1")


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """`agenthub train` in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "agenthub"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launch, "train", *more, "--out", str(out)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def second(process: subprocess.Popen[str]) -> psutil.Process:
    """The process that torchrun calls rank 1."""
    (found,) = [one for one in psutil.Process(process.pid).children() if one.environ().get("RANK") == "1"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_process_ends_the_run_which_resumes_exactly(tmp_path: Path) -> None:
    flags = [part for setting in SETTINGS for part in ("--set", setting)]
    whole = start(tmp_path / "whole", "grpo", *flags)
    said = whole.communicate(timeout=400)[0]
    assert whole.returncode == 0, said[-3000:]
    cut = start(tmp_path / "cut", "grpo", *flags)
    until = time.monotonic() + 300
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert cut.poll() is None, cut.communicate()[0][-3000:]
        assert time.monotonic() < until
        time.sleep(0.05)
    second(cut).kill()
    said = cut.communicate(timeout=60)[0]
    assert cut.returncode != 0
    assert "SIGKILL" in said
    checkpoint, _ = Checkpoints(tmp_path / "cut" / "checkpoints", keep=2).latest()
    assert checkpoint is not None
    assert checkpoint.update >= 2
    again = start(tmp_path / "cut", "--resume")
    said = again.communicate(timeout=400)[0]
    assert again.returncode == 0, said[-3000:]
    rows = [
        [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "cut", tmp_path / "whole")
    ]
    assert rows[0] == rows[1]
    scored = subprocess.run(
        [sys.executable, "-m", "agenthub", "eval", "arithmetic", "--policy", str(tmp_path / "cut"), "--count", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
