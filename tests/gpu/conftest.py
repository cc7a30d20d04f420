"""Tests of what only a GPU has. $AGENTHUB_GPU_TESTS=cpu runs the same lines without one where they can."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from agenthub.trainers.ranks import Ranks, joined

DEVICE = os.environ.get("AGENTHUB_GPU_TESTS", "cuda")


@pytest.fixture
def device() -> torch.device:
    """The GPU."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")
    return torch.device(DEVICE)


@pytest.fixture
def ranks(device: torch.device) -> Iterator[Ranks]:
    """A group of this process alone, which sharding needs."""
    with joined(device=device.type, timeout_s=120.0, alone=True) as one:
        yield one
