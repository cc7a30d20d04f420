"""Runs of `agenthub train` over a vLLM, in processes of their own, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from agenthub.policies.vllm_server import INTERPRETER, Engine
from agenthub.trainers.ledger import Ledger

SMALL = {
    "updates": 3,
    "rollout.groups": 4,
    "rollout.group_size": 4,
    "eval.tasks": 24,
    "eval.k": 1,
    "eval.temperature": 0.0,
    "sync_bound": 1e-4,
    "filter.args.min_n": 2,
    "checkpoint_every": 1,
    "policy.vllm.max_num_seqs": 32,
}


def command(folder: Path, **changes: Any) -> list[str]:
    settings = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [
        *(sys.executable, "-m", "agenthub", "train", "simpletir", "--out", str(folder)),
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    ]


def run(folder: Path, engine: Engine, **changes: Any) -> None:
    """A whole run, into a folder that is named as a person names it: from where they are."""
    environment = {**os.environ, INTERPRETER: engine.python}
    named = command(Path(folder.name), **changes)
    done = subprocess.run(named, env=environment, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trained(folder: Path) -> set[tuple[str, int, int]]:
    """(group, member, turn) of every turn that was played, from the run's trajectories."""
    found = set()
    for line in (folder / "trajectories.jsonl").read_text().splitlines():
        row = json.loads(line)
        found |= {(row["group"], row["member"], turn["index"]) for turn in row["turns"]}
    return found


def entered(folder: Path, updates: int) -> set[tuple[str, int, int]]:
    """What the ledger says trained; it must be sound."""
    ledger = Ledger(folder / "ledger.sqlite")
    turns = ledger.turns()
    assert ledger.problems(updates, 4) == []
    ledger.close()
    assert len({(turn.group, turn.member, turn.turn) for turn in turns}) == len(turns)
    return {(turn.group, turn.member, turn.turn) for turn in turns}
