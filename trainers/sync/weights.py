"""The weights that a server takes: their names, shapes and order, and each of them whole.

A trained model may be wrapped, sharded, in another precision than the server, tied, or carry adapters; what is listed
here is what a checkpoint of the plain model would hold. Listing gathers nothing; iterating gathers one at a time, which
every rank of a sharded model has to take part in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["Meta", "Weights", "plain_name"]

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module", "base"})
"""Parts of a name that torch.compile, FSDP, activation checkpointing, DDP and our adapters put in."""
_ADAPTERS = frozenset({"lora_A", "lora_B"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """One weight, before it is gathered."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of the whole weight."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def dtype_name(self) -> str:
        """`bfloat16` or the like."""
        return str(self.dtype).removeprefix("torch.")


class Weights:
    """The weights of a model in a fixed order; iterated, pairs of name and whole tensor."""

    def __init__(self, model: Any, *, dtype: torch.dtype | None = None, untie: bool = False) -> None:
        """
        Args:
            dtype: that of the server; None is each weight's own.
            untie: a tensor with two names is listed under both.
        """
        self._dtype = dtype
        self._rows: list[tuple[Meta, Tensor]] = []
        for name, parameter in model.named_parameters(remove_duplicate=not untie):
            plain = plain_name(name)
            if plain is not None:
                meta = Meta(name=plain, dtype=dtype or parameter.dtype, shape=tuple(parameter.shape))
                self._rows.append((meta, parameter))

    def metas(self) -> list[Meta]:
        """What will come, in order."""
        return [meta for meta, _ in self._rows]

    def __iter__(self) -> Iterator[tuple[Meta, Tensor]]:
        for meta, parameter in self._rows:
            whole = parameter.detach()
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            yield meta, whole.to(meta.dtype).contiguous()


def plain_name(name: str) -> str | None:
    """A parameter's name in a checkpoint of the plain model; None for an adapter's."""
    parts = name.split(".")
    if _ADAPTERS.intersection(parts):
        return None
    return ".".join(part for part in parts if part not in _WRAPPERS)
