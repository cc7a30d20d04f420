"""One of two gloo processes that share a model by FSDP2 and send its weights: rank 0 broadcasts, rank 1 gathers along.

torchrun --nproc-per-node 2 shards_sent.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from agenthub.trainers.adapters import LoraConfig, LowRank, add_adapters, write_adapter
from agenthub.trainers.sync.weights import Weights
from tests.trainers.fakes import tiny_model
from tests.trainers.test_transfer import Wire


def sharded(model: Any) -> Any:
    """The model over all ranks."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main(out: Path) -> None:
    """Shard, send, and write from rank 0 what was sent; then the same with adapters."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    first = dist.get_rank() == 0
    weights = Weights(sharded(tiny_model()), untie=True)
    wire = Wire(3000)
    wire.join(1)
    if first:
        (part,) = wire.parts(weights)
        part.send()
        torch.save({"update": part.update, "sent": wire.sent}, out / "sent.pt")
    else:
        for _ in weights:
            pass
    torch.manual_seed(0)
    model = add_adapters(tiny_model(), LoraConfig(rank=2))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LowRank):
                layer.lora_B.fill_(0.5)
    write_adapter(sharded(model), out / f"adapter-{dist.get_rank()}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
