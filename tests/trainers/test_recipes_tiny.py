"""Every recipe that ships, by `agenthub train` for three updates: real hub, its own suite, the tiny policy.

`test_recipes` and `test_strategies` prove each mechanism on a game whose outcomes are known; this proves that a person
who types the command gets three updates, and weights that moved where the policy can win anything.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from agenthub.trainers.config import RECIPES, load_recipe

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
ALWAYS = {"arpo", "chord", "dapo", "gigpo", "gspo", "ppo", "reval", "scaling_inter", "thor", "turn_value_by_fork"}
"""Ten that differ most; `simpletir` is in `test_cli`."""
BEYOND = {"craft_gui", "lean", "rlcr", "think2sql", "vision_zero"}
"""Suites of which the tiny policy wins nothing, so that there may be nothing to learn from."""
SMALL = (
    "updates=3",
    "rollout.groups=4",
    "rollout.group_size=4",
    "rollout.max_tokens=40",
    "eval=null",
    "optim.threads=1",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in NAMES]
)
def test_three_updates_of_a_recipe_by_the_command(tmp_path: Path, name: str) -> None:
    flags = [part for setting in SMALL for part in ("--set", setting)]
    command = [sys.executable, "-m", "agenthub", "train", name, "--out", str(tmp_path / "run"), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2, 3]
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert numbers and all(math.isfinite(value) for value in numbers)
    assert name in BEYOND or any(row["grad_norm"] > 0.0 for row in rows), [row.get("grad_norm") for row in rows]


def test_the_ten_and_the_exceptions_are_recipes() -> None:
    assert set(NAMES) >= ALWAYS | BEYOND
    assert {load_recipe(name).suite for name in NAMES} >= {"arithmetic", "sql", "lean_core"}
