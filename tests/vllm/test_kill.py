"""A trainer that is killed between a push and the resume of its server: what it finds when it comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_server import Running
from agenthub.trainers.metrics import without_times
from tests.vllm.gate import Gate
from tests.vllm.runs import command, entered, rows, trained

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1200)]

UPDATES, KILLED = 4, 2


async def ended(*arguments: str) -> str:
    """Run a trainer to its end; what it said."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()[-2000:]
    return said.decode()


async def test_a_trainer_killed_between_push_and_resume_finds_its_server_and_its_ledger_right(
    running: Running, policy: VllmPolicy, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"policy__uses": "vllm", "staleness": 2, "updates": UPDATES, "eval": "null"}
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "killed"
    await ended(*command(undisturbed, policy__vllm__url=running.url, **settings))
    # The first push is that of the weights that training starts from.
    async with Gate(running.url, "/resume", count=1 + KILLED) as gate:
        process = await asyncio.create_subprocess_exec(
            *command(folder, policy__vllm__url=gate.url, **settings),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        over = asyncio.create_task(process.wait())
        reached = asyncio.create_task(gate.reached.wait())
        await asyncio.wait([over, reached], return_when=asyncio.FIRST_COMPLETED)
        assert not over.done()
        os.kill(process.pid, signal.SIGKILL)
        await over
        assert await policy.http.call("GET", "/is_paused") == {"is_paused": True}
        assert await policy.http.weight_version() == str(KILLED)
        before = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "trajectories.jsonl")}
        await ended(sys.executable, "-m", "agenthub", "train", "--resume", "--out", str(folder))
    assert await policy.http.call("GET", "/is_paused") == {"is_paused": False}
    assert await policy.http.weight_version() == str(UPDATES)
    assert [row["update"] for row in rows(folder)] == list(range(1, UPDATES + 1))
    assert all(row["parity_error"] < 1e-4 for row in rows(folder))
    assert entered(folder, UPDATES) == trained(folder)
    assert (folder / "trajectories.jsonl").read_bytes().startswith(before["trajectories.jsonl"])
    first = json.loads(before["metrics.jsonl"].splitlines()[0])
    assert without_times(rows(folder)[0]) == without_times(first)
    assert distance(lengths(folder), lengths(undisturbed)) < 0.345


def lengths(folder: Path) -> list[int]:
    """Sampled tokens of each trajectory that trained."""
    played = [json.loads(line) for line in (folder / "trajectories.jsonl").read_text().splitlines()]
    return [sum(len(turn["generation"]["ids"]) for turn in one["turns"]) for one in played]


def distance(left: list[int], right: list[int]) -> float:
    """Kolmogorov and Smirnov's; for two samples of 64 it is above 0.345 once in a thousand times by chance."""
    assert len(left) == len(right) == 16 * UPDATES
    values = np.unique([*left, *right])
    shares = [np.searchsorted(np.sort(side), values, side="right") / len(side) for side in (left, right)]
    return float(np.abs(shares[0] - shares[1]).max())
