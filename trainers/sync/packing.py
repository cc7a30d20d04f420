"""Weights in a row of bytes: how many travel together, as vLLM's transfer engines count it on their side.

Both sides cut the same list of sizes by the same rule, so that nothing but the bytes has to be said.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["flat", "until_over", "within"]


def until_over(sizes: Sequence[int], limit: int) -> list[slice]:
    """Cuts of a broadcast: a part ends with the weight that takes it over `limit` bytes.

    Source: `packed_nccl_broadcast_consumer` of vllm/distributed/weight_transfer/packed_tensor.py.
    """
    cuts, begin, total = [], 0, 0
    for place, size in enumerate(sizes):
        total += size
        if total > limit:
            cuts.append(slice(begin, place + 1))
            begin, total = place + 1, 0
    return [*cuts, slice(begin, len(sizes))] if begin < len(sizes) else cuts


def within(sizes: Sequence[int], limit: int) -> list[slice]:
    """Cuts for one buffer of `limit` bytes: no part is larger.

    Raises:
        ValueError: a weight alone is larger than the buffer.
    """
    cuts, begin, total = [], 0, 0
    for place, size in enumerate(sizes):
        if size > limit:
            raise ValueError(f"weight {place} has {size} bytes, the buffer {limit}")
        if total + size > limit:
            cuts.append(slice(begin, place))
            begin, total = place, 0
        total += size
    return [*cuts, slice(begin, len(sizes))] if begin < len(sizes) else cuts


def flat(tensor: Tensor) -> Tensor:
    """u8[bytes]: a weight as it lies in memory."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
