"""One of two gloo processes that share a model by FSDP2: the update of a whole batch, and the weights gathered.

torchrun --nproc-per-node 2 shards.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from agenthub.trainers.sync.directory import full_state
from tests.trainers.fakes import tiny_model


def main(out: Path) -> None:
    """Shard, take one step on half of the rows each, gather, write from rank 0."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = tiny_model()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.arange(4 * 6).reshape(4, 6) % 24
    mine = rows[dist.get_rank() :: dist.get_world_size()]
    model(input_ids=mine, labels=mine).loss.backward()
    optimiser.step()
    state = full_state(model, untie=True)
    if dist.get_rank() == 0:
        torch.save(state, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
