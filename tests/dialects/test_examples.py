"""A stranger's trainers train on a hub: TRL's own, and one with nothing but the client."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.dialects.peers import CLIENTS, ROOT
from tests.sandboxes.boxes import need_jail
from tests.served import served

EXAMPLES = ROOT / "docs" / "examples"


def ended(folder: Path) -> list[dict[str, Any]]:
    """Every trajectory of a hub's log; an episode that was opened and has none was leaked."""
    with sqlite3.connect(folder / "log.sqlite") as log:
        (opened,) = log.execute("SELECT count(*) FROM episodes").fetchone()
        rows = [json.loads(body)["trajectory"] for (body,) in log.execute("SELECT body FROM trajectories")]
    assert len(rows) == opened, "an episode was left open"
    return rows


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(600)
def test_trl_trains_three_updates_on_played_episodes(tmp_path: Path, trl: str) -> None:
    need_jail()
    run(trl, str(CLIENTS / "tiny_chat_model.py"), str(tmp_path / "model"), cwd=tmp_path)
    with served(ROOT / "tasks" / "arithmetic_turns.yaml", tmp_path) as url:
        said = run(trl, str(EXAMPLES / "trl_grpo.py"), url, str(tmp_path / "model"), "3", cwd=tmp_path)
        updates = [ast.literal_eval(row) for row in re.findall(r"\{'loss'.*?\}", said)]
        # Read while the hub lives: its end would end what was left open.
        trajectories = ended(tmp_path)
    assert len(updates) == 3 and all(float(row["grad_norm"]) >= 0 for row in updates)
    assert len(trajectories) == 12, "three updates of a group of four"
    assert all(row["turns"] and row["outcome"] == "ok" and row["reward"] is not None for row in trajectories)
    assert sum(len(turn["calls"]) for row in trajectories for turn in row["turns"]) > 0, "tools were called"
    # What TRL saw is what the hub gave: the same mean, over the same twelve episodes.
    told = sum(float(row["rewards/Episode/mean"]) for row in updates) / 3
    assert told == pytest.approx(sum(row["reward"] for row in trajectories) / 12, abs=1e-3)
    assert told > 0, "a call that works is paid for in this suite, and the model makes some"


def test_a_trainer_of_ones_own_learns_what_works(tmp_path: Path) -> None:
    need_jail()
    with served(ROOT / "tasks" / "arithmetic.yaml", tmp_path) as url:
        said = run(sys.executable, str(EXAMPLES / "own_trainer.py"), url, "6", cwd=tmp_path)
        trajectories = ended(tmp_path)
    chosen = [int(row) for row in re.findall(r"runs it (\d+)%", said)]
    assert len(chosen) == 6 and chosen[-1] > 60 > chosen[0]
    assert len(trajectories) == 6 * 32


@pytest.mark.parametrize("name", ["own_trainer.py", "trl_grpo.py"])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= 60
