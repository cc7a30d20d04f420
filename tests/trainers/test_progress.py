"""What a run shows on the terminal: the faults of both kinds are always there."""

from __future__ import annotations

from dataclasses import replace

from agenthub.records import Outcome, frozen
from agenthub.trainers.evaluate import score
from agenthub.trainers.progress import evaluation_text, update_line
from tests.trainers.fakes import trajectory

ROW = {
    "update": 3,
    "success": 0.5,
    "reward": 0.5,
    "void_rate": 0.0,
    "kept": 6,
    "dropped": {"env_fault": 2, "void": 1},
    "replayed": 4,
    "grad_norm": 0.1,
    "entropy": 1.0,
    "tokens_per_s": 10.0,
    "seconds": {"rollout": 1.0},
}


def test_a_line_of_an_update_counts_both_faults() -> None:
    assert "infra_fault 4 env_fault 2" in update_line(ROW, 10)
    assert "infra_fault 0 env_fault 0" in update_line({**ROW, "dropped": {}, "replayed": 0}, 10)


def test_an_evaluation_counts_both_faults() -> None:
    played = trajectory([], member=0)
    broken = replace(played, member=1, outcome=Outcome.ENV_FAULT, reward=None, rewards=frozen())
    found = replace(score([played, broken], 2), replayed=3)
    assert "infra_fault 3 env_fault 1" in evaluation_text(found)
    assert (found.row()["unscored"], found.row()["replayed"]) == (1, 3)
