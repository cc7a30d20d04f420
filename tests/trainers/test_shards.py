"""Weights that two processes share by FSDP2 are gathered whole, tied ones too, after a step that both took part in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainers.fakes import tiny_model

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(200)
def test_a_sharded_model_is_gathered_as_one_process_would_have_it(tmp_path: Path) -> None:
    script, out = Path(__file__).with_name("shards.py"), tmp_path / "state.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script), str(out)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    gathered = torch.load(out, weights_only=True)
    model = tiny_model()
    rows = torch.arange(4 * 6).reshape(4, 6) % 24
    model(input_ids=rows, labels=rows).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    expected = model.state_dict()
    assert set(gathered) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(gathered[name], value, atol=1e-6, rtol=1e-5)
    moved = expected["model.embed_tokens.weight"] - tiny_model().state_dict()["model.embed_tokens.weight"]
    assert moved.abs().max() > 1e-4
