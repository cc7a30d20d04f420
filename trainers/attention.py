"""Attention over packed token runs, as an attention function of transformers that any model's layers can call.

A row's queries are the tokens that it stores, its keys the tokens of its whole path; the last query sees the last key.
Where a kernel for rows of many lengths is at hand (half precision on a GPU) they are handed over as they lie; elsewhere
the rows are padded inside the attention alone, in blocks of like lengths.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agenthub.trainers.packing import Indices, Pack

__all__ = ["NAME", "Block", "Layout", "attend", "causal", "layout_of", "varlen_kernel"]

NAME = "agenthub_packed"
"""Under which transformers knows the function."""
_LIKE = 0.6
"""A row shorter than this share of the longest one of its block opens the next block."""

Kernel = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """S rows padded to Q queries and K keys."""

    queries: Tensor
    """i64[S * Q]: places within P, any where a row is shorter."""
    keys: Tensor
    """i64[S * K]"""
    rows: int
    mask: Tensor | None
    """bool[S, 1, Q, K]: True where a query sees a key; None where each sees itself and what is before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Who sees whom among the P tokens of a pack. Either `blocks` or the lengths are given."""

    blocks: tuple[Block, ...] = ()
    out: Tensor | None = None
    """i64[P]: where each token's result lies among those of all blocks."""
    ends_q: Tensor | None = None
    """i32[R + 1]: where the rows' queries end, from 0."""
    ends_k: Tensor | None = None
    keys: Tensor | None = None
    """i64[sum of K]: places within P of the rows' keys; None where they are the queries."""
    longest_q: int = 0
    longest_k: int = 0


def varlen_kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """torch's kernel for rows of many lengths, causal, where this device and type have one.

    (query, key, value, ends_q, ends_k, longest_q, longest_k, scale=) -> [P, heads, D]; a row's last query is aligned
    with its last key, and several heads may share a key's.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return causal(varlen_attn)


def causal(kernel: Kernel) -> Kernel:
    """`varlen_attn` under the names that this version of torch gives to being causal, to grouped heads and to a scale.

    Before it was asked to allow grouped heads it computed them unasked.
    """
    known = inspect.signature(kernel).parameters
    fixed: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}

    def call(query: Tensor, key: Tensor, value: Tensor, *ends: Any, scale: float) -> Any:
        if "scale" in known:
            fixed["scale"] = scale
        else:
            query = query * (scale * query.shape[-1] ** 0.5)
        if "enable_gqa" in known:
            fixed["enable_gqa"] = key.shape[1] != query.shape[1]
        return kernel(query, key, value, *ends, **fixed)

    return call


def layout_of(pack: Pack, device: torch.device, *, varlen: bool) -> Layout:
    """The layout of a pack, for the kernel or for blocks."""
    rows = pack.rows
    queries = [pack.paths[row][len(pack.paths[row]) - pack.own[row] :] for row in rows]
    keys = [pack.paths[row] for row in rows]
    if varlen:
        return _lengths(queries, keys, device)
    blocks, places, base = [], np.empty(pack.ids.size, np.int64), 0
    for part in _alike(queries, keys):
        block, width = _block([queries[row] for row in part], [keys[row] for row in part], device)
        for number, row in enumerate(part):
            places[queries[row]] = base + number * width + np.arange(queries[row].size)
        base += len(part) * width
        blocks.append(block)
    return Layout(blocks=tuple(blocks), out=torch.as_tensor(places, device=device))


def _lengths(queries: Sequence[Indices], keys: Sequence[Indices], device: torch.device) -> Layout:
    ends_q, ends_k = (np.cumsum([0, *(row.size for row in side)]).astype(np.int32) for side in (queries, keys))
    shares = int(ends_q[-1]) != int(ends_k[-1])
    return Layout(
        ends_q=torch.as_tensor(ends_q, device=device),
        ends_k=torch.as_tensor(ends_k, device=device),
        keys=torch.as_tensor(np.concatenate(keys), device=device) if shares else None,
        longest_q=max(row.size for row in queries),
        longest_k=max(row.size for row in keys),
    )


def _alike(queries: Sequence[Indices], keys: Sequence[Indices]) -> list[list[int]]:
    """Rows by whether they share, then by length; each part padded to its longest row."""
    parts: list[list[int]] = []
    for shares in (False, True):
        mine = [row for row in range(len(keys)) if (queries[row].size < keys[row].size) == shares]
        mine.sort(key=lambda row: (-queries[row].size, -keys[row].size))
        part: list[int] = []
        for row in mine:
            if part and queries[row].size < _LIKE * queries[part[0]].size:
                parts.append(part)
                part = []
            part.append(row)
        if part:
            parts.append(part)
    return parts


def _block(queries: Sequence[Indices], keys: Sequence[Indices], device: torch.device) -> tuple[Block, int]:
    """(the block, its Q)"""
    sizes_q, sizes_k = (np.array([row.size for row in side]) for side in (queries, keys))
    width_q, width_k = int(sizes_q.max()), int(sizes_k.max())
    mask = None
    if (sizes_q < sizes_k).any():
        sees = np.arange(width_q)[None, :] + (sizes_k - sizes_q)[:, None]
        # A padded query sees what the last key sees, so that no row of the softmax is empty.
        mask = torch.as_tensor(np.arange(width_k) <= sees[:, None, :, None], device=device)
        mask &= torch.as_tensor(np.arange(width_k) < sizes_k[:, None], device=device)[:, None, None, :]
    block = Block(
        queries=torch.as_tensor(_padded(queries, width_q), device=device),
        keys=torch.as_tensor(_padded(keys, width_k), device=device),
        rows=len(queries),
        mask=mask,
    )
    return block, width_q


def _padded(rows: Sequence[Indices], width: int) -> Indices:
    """i64[S * width], each row filled up with its own first place."""
    out = np.stack([np.concatenate([row, np.full(width - row.size, row[0])]) for row in rows])
    flat: Indices = out.reshape(-1)
    return flat


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: [1, heads, P, D] in, [1, P, heads, D] out; without a layout plain rows."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if layout is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling
        )
        return out
    sides = [side[0].transpose(0, 1) for side in (query, key, value)]
    kernel = varlen_kernel(query.device, query.dtype) if layout.ends_q is not None else None
    done = _by_lengths(kernel, sides, layout, scaling) if kernel else _by_blocks(sides, layout, scaling)
    return done[None], None


def _by_lengths(kernel: Kernel, sides: Sequence[Tensor], layout: Layout, scaling: float | None) -> Tensor:
    """[P, heads, D]; the kernel aligns a row's last query with its last key."""
    query, key, value = sides
    if layout.keys is not None:
        key, value = (side.index_select(0, layout.keys) for side in (key, value))
    out: Tensor = kernel(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        layout.ends_q,
        layout.ends_k,
        layout.longest_q,
        layout.longest_k,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
    )
    return out


def _by_blocks(sides: Sequence[Tensor], layout: Layout, scaling: float | None) -> Tensor:
    """[P, heads, D]"""
    query, key, value = sides
    outs = []
    for block in layout.blocks:
        q, k, v = (
            side.index_select(0, places).reshape(block.rows, -1, *side.shape[1:]).transpose(1, 2)
            for side, places in ((query, block.queries), (key, block.keys), (value, block.keys))
        )
        if k.shape[1] != q.shape[1]:
            k, v = (side.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for side in (k, v))
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=block.mask, is_causal=block.mask is None, scale=scaling
        )
        outs.append(out.transpose(1, 2).flatten(0, 1))
    if layout.out is None:
        raise ValueError("a layout of blocks needs the places of its results")
    return torch.cat(outs).index_select(0, layout.out)
