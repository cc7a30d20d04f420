"""Weights shared by two processes are sent whole, in the order that was told, and their adapters are written whole."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from agenthub.trainers.adapters import LoraConfig, add_adapters
from tests.trainers.fakes import tiny_model
from tests.trainers.test_transfer import unpacked

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_a_sharded_model_is_sent_as_one_process_would_send_it(tmp_path: Path) -> None:
    script = Path(__file__).with_name("shards_sent.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = torch.load(tmp_path / "sent.pt", weights_only=True)
    sizes = [4 * math.prod(shape) for shape in told["update"]["shapes"]]
    rows = unpacked(told["update"], torch.cat(told["sent"]), sizes)
    plain = tiny_model().state_dict()
    assert rows.keys() == plain.keys()
    assert all(torch.equal(rows[name], value) for name, value in plain.items())
    torch.manual_seed(0)
    expected = dict(add_adapters(tiny_model(), LoraConfig(rank=2)).named_parameters())
    adapter = load_file(tmp_path / "adapter-0" / "adapter_model.safetensors")
    assert len(adapter) == 2 * 7 * 2
    for name, value in adapter.items():
        if name.endswith("lora_A.weight"):
            assert torch.equal(value, expected[name.removeprefix("base_model.model.").removesuffix(".weight")])
        else:
            assert (value == 0.5).all() and value.shape[1] == 2
