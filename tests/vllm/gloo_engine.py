"""A weight transfer engine for a vLLM on a CPU, as its factory lets anyone add one: vLLM's native routes without a GPU.

The server imports this module by `--worker-extension-cls` and takes `--weight-transfer-config {"backend": "gloo"}`. It
reads what vLLM's own NCCL engine reads, with gloo in NCCL's place; `packed_tensor` and the reload are vLLM's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch._C._distributed_c10d import TCPStore
from torch.distributed import ProcessGroupGloo

WAIT = timedelta(seconds=60)


def meet(host: str, port: int, rank: int, size: int) -> Any:
    """The group, by a store that rank 0 holds."""
    store = TCPStore(host, port, size, rank == 0, timeout=WAIT, wait_for_workers=False)
    return ProcessGroupGloo(store, rank, size, WAIT)


def register() -> None:
    """Add the engine to vLLM's factory; called where vLLM can be imported."""
    from vllm.distributed.weight_transfer import base, factory, packed_tensor  # type: ignore[import-not-found]

    @dataclass
    class Init(base.WeightTransferInitInfo):  # type: ignore[misc]
        master_address: str
        master_port: int
        rank_offset: int
        world_size: int
        packed: bool
        packed_buffer_size_bytes: int
        packed_num_buffers: int

    @dataclass
    class Update(base.WeightTransferUpdateInfo):  # type: ignore[misc]
        names: list[str]
        dtype_names: list[str]
        shapes: list[list[int]]

    class Engine(base.WeightTransferEngine):  # type: ignore[misc]
        init_info_cls, update_info_cls = Init, Update

        def init_transfer_engine(self, init: Init) -> None:
            self.limit = init.packed_buffer_size_bytes
            rank = init.rank_offset + self.parallel_config.rank
            self.group = meet(init.master_address, init.master_port, rank, init.world_size)

        def start_weight_update(self) -> None:
            from vllm.model_executor.model_loader.reload import (  # type: ignore[import-not-found]
                initialize_layerwise_reload,
            )

            initialize_layerwise_reload(self.model)

        def update_weights(self, update: dict[str, Any]) -> None:
            self.receive_weights(self.parse_update_info(update))

        def receive_weights(self, update: Update) -> None:
            rows: list[tuple[str, list[int], torch.dtype, int]] = []
            for name, kind, shape in zip(update.names, update.dtype_names, update.shapes, strict=True):
                dtype = getattr(torch, kind)
                rows.append((name, shape, dtype, math.prod(shape) * dtype.itemsize))
                if sum(row[3] for row in rows) > self.limit:
                    self._take(rows)
                    rows = []
            if rows:
                self._take(rows)

        def _take(self, rows: list[tuple[str, list[int], torch.dtype, int]]) -> None:
            names, shapes, dtypes, sizes = (list(column) for column in zip(*rows, strict=True))
            packed = torch.empty(sum(sizes), dtype=torch.uint8)
            self.group.broadcast(packed, 0).wait()
            self.model.load_weights(packed_tensor.unpack_tensor(packed, names, shapes, dtypes, sizes))

        def finish_weight_update(self) -> None:
            from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

            finalize_layerwise_reload(self.model, self.model_config)

        def shutdown(self) -> None:
            self.group = None

    factory.WeightTransferEngineFactory.register_engine("gloo", Engine)


class Extension:
    """What vLLM mixes into its worker: nothing; to import it is what counts."""


try:
    register()
except ImportError:
    """The trainer's side, where vLLM cannot be imported."""
