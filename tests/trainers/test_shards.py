"""A model that two processes share trains as one does, stops when one of them is killed, and goes on exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from agenthub.errors import UserError
from agenthub.trainers.checkpoint import Checkpoints
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.hardware import LearnerConfig
from agenthub.trainers.lead import learner_of
from agenthub.trainers.losses import PPO
from agenthub.trainers.metrics import without_times
from agenthub.trainers.ranks import ALONE, world
from agenthub.trainers.sharded import whole_weights, write_shards
from tests.trainers.fakes import mixed_batch, tiny_model
from tests.trainers.shards import made, trained

ROOT = Path(__file__).parents[2]


def torchrun(folder: Path, *cases: str) -> subprocess.CompletedProcess[str]:
    """Two processes that play some cases."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = str(Path(__file__).with_name("shards.py"))
    command = [*launch, script, str(folder), *cases]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes found, and what one wrote for them before."""
    folder = tmp_path_factory.mktemp("shards")
    torch.set_num_threads(1)
    alone = made(ALONE, shard=False)
    trained(alone, range(2))
    torch.save(alone.state_dict(), folder / "alone.pt")
    write_shards(folder / "of_one", alone.door, alone.optimiser)
    done = torchrun(folder, "same", "half", "save", "resume", "adopt", "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def close(got: dict[str, Any], expected: Any, *, atol: float = 1e-5) -> None:
    """The weights of two processes are those of one."""
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=atol, rtol=1e-4)


@pytest.mark.timeout(400)
def test_losses_weights_and_log_probabilities_of_two_are_those_of_one(played: Path) -> None:
    found = torch.load(played / "same.pt", weights_only=True)
    alone, batch = made(ALONE, shard=False), mixed_batch()
    for row, expected in zip(found["rows"], trained(alone, range(3)), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    close(found["weights"], alone.model.state_dict())
    torch.testing.assert_close(
        found["lp"], torch.tensor(alone.logprobs(batch, batch.action_mask)), atol=1e-4, rtol=1e-4
    )
    assert not torch.equal(found["weights"]["model.norm.weight"], tiny_model().state_dict()["model.norm.weight"])


def test_computed_in_bf16_weights_and_states_stay_float32(played: Path) -> None:
    found = torch.load(played / "half.pt", weights_only=True)
    assert found["kinds"] == ["torch.float32"]
    alone = made(ALONE, shard=False)
    assert found["rows"][0] == pytest.approx(trained(alone, range(1))[0], rel=0.05)
    assert found["rows"][0] != pytest.approx(trained(made(ALONE, shard=False), range(1))[0], rel=1e-6)


@pytest.mark.parametrize("case", ["resume", "adopt"])
def test_what_one_process_wrote_two_go_on_from(played: Path, case: str) -> None:
    alone = made(ALONE, shard=False)
    trained(alone, range(2))
    found = torch.load(played / f"{case}.pt", weights_only=True)
    assert found["rows"][0] == pytest.approx(trained(alone, range(2, 3))[0], rel=1e-4)
    close(found["weights"], alone.model.state_dict())


def test_what_two_wrote_one_process_goes_on_from_and_reads_whole(played: Path) -> None:
    expected = made(ALONE, shard=False)
    trained(expected, range(2))
    close(whole_weights(played / "of_two"), expected.model.state_dict())
    alone = made(ALONE, shard=False)
    alone.load_state_dict({"shards": str(played / "of_two"), "losses": [{}]})
    trained(alone, range(2, 3))
    trained(expected, range(2, 3))
    close(alone.model.state_dict(), expected.model.state_dict())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_rank_stops_the_run_which_goes_on_exactly_from_its_checkpoint(played: Path, tmp_path: Path) -> None:
    done = torchrun(tmp_path, "killed")
    assert done.returncode != 0
    assert "a rank of the training processes is gone" in (tmp_path / "said").read_text()
    assert "Signal 9 (SIGKILL)" in done.stderr
    checkpoint, broken = Checkpoints(tmp_path / "cut" / "checkpoints", keep=2).latest()
    assert checkpoint is not None
    assert (checkpoint.update, broken) == (2, [])
    done = torchrun(tmp_path, "again")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("metrics.jsonl", "trajectories.jsonl"):
        rows = [
            [without_times(json.loads(line)) for line in (folder / name).read_text().splitlines()]
            for folder in (tmp_path / "cut", played / "whole")
        ]
        assert rows[0] == rows[1]
    ends = [Checkpoints(folder / "checkpoints", keep=2).latest()[0] for folder in (tmp_path / "cut", played / "whole")]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].update == ends[1].update == 5
    weights = [end.state["learner"]["model"] for end in ends if end is not None]
    for name, value in weights[1].items():
        assert torch.equal(weights[0][name], value)


def test_another_number_of_processes_than_was_asked_for_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match="shards is 2, and 1 run; start them with: torchrun --nproc-per-node 2"):
        learner_of(tiny_model(), PPO(), OptimConfig(), LearnerConfig(shards=2), temperature=1.0)


def test_what_torchrun_says_is_read_and_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert world() == (1, 2)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UserError, match="RANK is '2' and WORLD_SIZE '2'"):
        world()
