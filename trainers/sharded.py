"""A model spread over ranks by FSDP2: float32 weights in shards, computed in bf16 or float32, gathered when needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from agenthub.trainers.door import Door
from agenthub.trainers.ranks import Ranks

__all__ = [
    "checkpoint_activations",
    "gather",
    "layers_of",
    "read_shards",
    "read_whole",
    "spread",
    "whole_weights",
    "write_shards",
]


def layers_of(model: Any) -> list[torch.nn.Module]:
    """The model's blocks, as transformers names them; each is gathered, computed and let go by itself."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def spread(door: Door, ranks: Ranks, *, offload: bool = False) -> None:
    """Shard the door's model over the ranks, in place; it then computes in the door's type.

    Gradients are summed over ranks in float32 and divided by their number.

    Args:
        offload: shards, gradients and the optimiser's states lie in the host's memory.
    """
    mesh = init_device_mesh(door.device.type, (ranks.size,))
    half = door.dtype != torch.float32
    policy = (
        MixedPrecisionPolicy(param_dtype=door.dtype, reduce_dtype=torch.float32) if half else MixedPrecisionPolicy()
    )
    where: OffloadPolicy = CPUOffloadPolicy() if offload else OffloadPolicy()
    for layer in layers_of(door.model):
        fully_shard(layer, mesh=mesh, mp_policy=policy, offload_policy=where)
    fully_shard(door, mesh=mesh, mp_policy=policy, offload_policy=where)


def checkpoint_activations(model: Any) -> None:
    """Keep what goes into each block and compute the rest again in the backward pass. Nothing drops out.

    Raises:
        ValueError: the model cannot do it.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    # Nothing is drawn in a block, so no state of random numbers has to be kept.
    enable({"use_reentrant": False, "preserve_rng_state": False})
    for layer in layers_of(model):
        # Blocks look at this flag before they checkpoint; what is inside them stays in evaluation mode.
        layer.training = True


@torch.no_grad()
def gather(model: Any, whole: Any) -> None:
    """Copy the weights of a sharded model into an unsharded one; ranks without one give None and take part.

    One weight is whole at a time.
    """
    targets = whole.state_dict() if whole is not None else {}
    for name, value in model.state_dict().items():
        if isinstance(value, DTensor):
            # Shards in the host's memory would be gathered there.
            placed: Any = value.to(value.device_mesh.device_type)
            value = placed.full_tensor()
        if whole is not None:
            targets[name].copy_(value)


def write_shards(folder: Path, door: Door, optimiser: torch.optim.Optimizer) -> None:
    """Write weights and optimiser as a distributed checkpoint; every rank its part, into a folder that all of them see.

    Raises:
        OSError: the disk is full or not writable.
    """
    weights, states = get_state_dict(door, optimiser)
    save({"model": _inner(weights), "optimiser": states}, checkpoint_id=folder, no_dist=not dist.is_initialized())


def read_shards(folder: Path, door: Door, optimiser: torch.optim.Optimizer) -> None:
    """Read what any number of ranks wrote; every rank its part.

    Raises:
        OSError, ValueError, RuntimeError: it is not there, or of another model.
    """
    weights, states = get_state_dict(door, optimiser)
    load({"model": _inner(weights), "optimiser": states}, checkpoint_id=folder, no_dist=not dist.is_initialized())
    set_state_dict(
        door, optimiser, model_state_dict=weights, optim_state_dict=states, options=StateDictOptions(strict=True)
    )


def read_whole(
    weights: Mapping[str, Any], states: Mapping[str, Any], door: Door, optimiser: torch.optim.Optimizer
) -> None:
    """Take over what one process wrote, the model's and the optimiser's own states; every rank is given all of it.

    Raises:
        ValueError, RuntimeError: it is of another model.
    """
    names = [name for name, parameter in door.named_parameters() if parameter.requires_grad]
    group = dict(states["param_groups"][0])
    by_name: dict[str, Any] = {
        "state": {names[number]: row for number, row in states["state"].items()},
        "param_groups": [group | {"params": [names[number] for number in group["params"]]}],
    }
    options = StateDictOptions(full_state_dict=True, strict=True)
    outer = {f"model.{name}": value for name, value in weights.items()}
    set_state_dict(door, optimiser, model_state_dict=outer, optim_state_dict=by_name, options=options)


def whole_weights(folder: Path) -> dict[str, Tensor]:
    """The model's weights from a distributed checkpoint, whole, on the CPU; in any one process.

    Raises:
        OSError, ValueError, RuntimeError: it cannot be read.
    """
    reader = FileSystemReader(folder)
    known = reader.read_metadata().state_dict_metadata
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in known.items()
        if name.startswith("model.") and isinstance(entry, TensorStorageMetadata)
    }
    load(state, storage_reader=reader, no_dist=True)
    return {name.removeprefix("model."): value for name, value in state.items()}


def _inner(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Names as the model has them, without the door's."""
    return {name.removeprefix("model."): value for name, value in weights.items()}
