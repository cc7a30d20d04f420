"""A buffer that is lent to another process on the same GPU, read there as vLLM reads it."""

from __future__ import annotations

import base64
import multiprocessing
import pickle
from multiprocessing.connection import Connection

import pytest
import torch

from agenthub.trainers.sync.transfer import Ipc
from agenthub.trainers.sync.weights import Weights
from tests.gpu.test_learner import model_on

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def server(told: Connection) -> None:
    """The sum of each part's bytes, until there is no more."""
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    known = None
    while (row := told.recv()) is not None:
        handle, size = row
        if known is None:
            (arguments,) = pickle.loads(base64.b64decode(handle)).values()
            placed = (*arguments[:6], torch.cuda.current_device(), *arguments[7:])
            known = rebuild_cuda_tensor(*placed)  # type: ignore[no-untyped-call]
        told.send(int(known[:size].clone().long().sum()))


def test_another_process_reads_each_part_of_a_shared_buffer_and_it_is_freed(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("a CPU shares no GPU's memory")
    weights = Weights(model_on(device), dtype=torch.bfloat16)
    transfer = Ipc(buffer_bytes=300_000)
    here, there = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=server, args=(there,), daemon=True)
    child.start()
    before = torch.cuda.memory_allocated()
    found = []
    for part in transfer.parts(weights):
        here.send((part.update["ipc_handles_pickled"], sum(part.update["tensor_sizes"])))
        assert here.poll(120)
        found.append(here.recv())
    here.send(None)
    child.join(60)
    transfer.done()
    assert len(found) > 1
    assert sum(found) == sum(int(value.view(torch.uint8).long().sum()) for _, value in weights)
    assert torch.cuda.memory_allocated() <= before + 1024
