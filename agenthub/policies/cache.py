"""The key-value cache of one batch, and what is kept of it between the turns of an episode.

A batch is left-padded: a row's tokens end at the last column. Columns that a row does not use are masked, so cached
columns of different lengths and new tokens of different lengths stand side by side.

Axes in names: B rows, C cached columns, N new columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from agenthub.records import Ints

__all__ = ["BatchCache", "KeptCaches", "causal_mask", "is_plain"]


def is_plain(model: Any) -> bool:
    """True where every layer attends to the whole context, so that columns can be cut out and put together."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


class BatchCache:
    """A Hugging Face cache with the mask of its columns."""

    def __init__(self, model: Any, layers: Sequence[tuple[Tensor, Tensor]] = (), mask_BC: Tensor | None = None) -> None:
        self.hf = DynamicCache(config=model.config)
        for index, (keys, values) in enumerate(layers):
            self.hf.update(keys, values, index)
        self.mask_BC = mask_BC

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named more than once."""
        self.hf.batch_select_indices(rows)
        if self.mask_BC is not None:
            self.mask_BC = self.mask_BC[rows]

    def widened(self, model: Any, part: BatchCache, rows: Tensor) -> BatchCache:
        """This cache with the last columns of `part`, which grew from this one's `rows`; other rows do not use them."""
        if self.mask_BC is None or part.mask_BC is None:
            raise ValueError("a cache without a mask cannot be widened")
        old, new = self.mask_BC.shape[1], part.mask_BC.shape[1]
        mask_BC = torch.zeros((self.mask_BC.shape[0], new), dtype=torch.bool, device=self.mask_BC.device)
        mask_BC[:, :old] = self.mask_BC
        mask_BC[rows] = part.mask_BC
        layers = []
        for index, layer in enumerate(part.hf.layers):
            pair = []
            for name in ("keys", "values"):
                side: Tensor = getattr(layer, name)
                wide = side.new_zeros((mask_BC.shape[0], side.shape[1], new, side.shape[3]))
                if old:
                    wide[:, :, :old] = getattr(self.hf.layers[index], name)
                wide[rows] = side
                pair.append(wide)
            layers.append((pair[0], pair[1]))
        return BatchCache(model, layers, mask_BC)

    def take(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of these rows, a pair a layer."""
        return [(layer.keys[rows], layer.values[rows]) for layer in self.hf.layers]


def causal_mask(mask_BK: Tensor, new: int, dtype: torch.dtype) -> Tensor:
    """Additive attention mask [B, 1, new, K] of the last `new` of K columns: causal, and blind to unused columns.

    A column always sees itself, so that no unused row of the softmax is empty.
    """
    columns = torch.arange(mask_BK.shape[1], device=mask_BK.device)
    queries = columns[-new:, None]
    seen = (mask_BK[:, None, None, :] & (columns <= queries)) | (columns == queries)
    return torch.zeros(seen.shape, dtype=dtype, device=mask_BK.device).masked_fill(~seen, torch.finfo(dtype).min)


@dataclass(frozen=True, slots=True)
class _Kept:
    ids: Ints
    """Tokens whose keys and values are kept: the last `len(ids)` columns of the row, at the row's own columns."""
    layers: list[tuple[Tensor, Tensor]]
    columns: Tensor
    """The columns of the chunk that the row uses, in order."""
    row: int


class KeptCaches:
    """What is kept of finished turns, by episode."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def put(self, episodes: Sequence[str], ids: Sequence[Ints], cache: BatchCache, rows: Tensor) -> None:
        """Keep `rows` of the batch; `ids[n]` are the tokens of the n-th one that the cache holds."""
        if cache.mask_BC is None or not any(episodes):
            return
        layers, masks = cache.take(rows), cache.mask_BC[rows]
        for row, (episode, tokens) in enumerate(zip(episodes, ids, strict=True)):
            if episode:
                columns = masks[row].nonzero()[:, 0]
                self._kept[episode] = _Kept(tokens, layers, columns, row)

    def shared(self, episode: str, prompt: Ints) -> int:
        """How many of the prompt's first tokens are kept for the episode; at least one token is left to compute."""
        kept = self._kept.get(episode)
        if kept is None:
            return 0
        size = min(len(kept.ids), len(prompt) - 1)
        differs = (kept.ids[:size] != prompt[:size]).nonzero()[0]
        return int(differs[0]) if differs.size else size

    def assemble(self, model: Any, episodes: Sequence[str], counts_B: Sequence[int]) -> BatchCache:
        """A batch whose row n holds the first `counts_B[n]` kept tokens of `episodes[n]`, right-aligned."""
        width = max(counts_B)
        mask_BC = torch.zeros((len(counts_B), width), dtype=torch.bool, device=model.device)
        if width == 0:
            return BatchCache(model, (), mask_BC)
        chunks: dict[int, list[tuple[int, _Kept]]] = {}
        for target, (episode, count) in enumerate(zip(episodes, counts_B, strict=True)):
            if count:
                kept = self._kept[episode]
                chunks.setdefault(id(kept.layers), []).append((target, kept))
                mask_BC[target, width - count :] = True
        first = next(iter(chunks.values()))[0][1]
        layers = [
            tuple(side.new_zeros((len(counts_B), side.shape[1], width, side.shape[3])) for side in pair)
            for pair in first.layers
        ]
        for members in chunks.values():
            self._copy(members, counts_B, layers, width)
        return BatchCache(model, [(keys, values) for keys, values in layers], mask_BC)

    def forget(self, episodes: Sequence[str]) -> None:
        """Drop what is kept for these episodes."""
        for episode in episodes:
            self._kept.pop(episode, None)

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()

    @staticmethod
    def _copy(members: Sequence[tuple[int, _Kept]], counts_B: Sequence[int], layers: Sequence[Any], width: int) -> None:
        """Copy the rows of one chunk to their places: one gather and one scatter a tensor."""
        device = members[0][1].columns.device
        source_rows, source_columns, rows, columns = [], [], [], []
        for target, kept in members:
            count = counts_B[target]
            source_rows.append(torch.full((count,), kept.row, device=device))
            source_columns.append(kept.columns[:count])
            rows.append(torch.full((count,), target, device=device))
            columns.append(torch.arange(width - count, width, device=device))
        source = torch.cat(source_rows), torch.cat(source_columns)
        place = torch.cat(rows), torch.cat(columns)
        for pair, targets in zip(members[0][1].layers, layers, strict=True):
            for side, target_side in zip(pair, targets, strict=True):
                target_side[place[0], :, place[1]] = side[source[0], :, source[1]]
