"""The generation loop of the embedded policy: one forward pass a token for all rows that are not finished.

Axes in names: B rows, V vocabulary, C cached columns, N new columns.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agenthub.policies.cache import BatchCache, KeptCaches, causal_mask, is_plain
from agenthub.policies.sampling import Row, draw
from agenthub.records import ints

__all__ = ["Decoder"]

_WORTH = 0.7
"""Share of a prefill's cost below which it is computed in two parts."""


class Decoder:
    """Samples batches with one model. Not thread-safe."""

    def __init__(self, model: Any, *, keep_cache: bool) -> None:
        self.model = model
        self.kept = KeptCaches()
        self._plain = is_plain(model)
        self._keeps = keep_cache and self._plain
        accepted = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._positions = "position_ids" in accepted

    @torch.inference_mode()
    def sample(self, rows: Sequence[Row]) -> None:
        """Sample every row to its end; the rows are filled in place."""
        cache, logits_BV = self._prefill(rows)
        live = list(rows)
        lengths_B = torch.tensor([row.request.prompt_ids.size for row in rows])
        temperatures_B = torch.tensor([row.request.sampling.temperature for row in rows], device=logits_BV.device)
        draws = np.zeros((len(rows), max(row.budget for row in rows)), dtype=np.float32)
        for index, row in enumerate(rows):
            draws[index, : row.budget] = row.draws
        uniforms = torch.from_numpy(draws).to(logits_BV.device)
        for step in range(uniforms.shape[1]):
            tokens_B, logprobs_B, entropies_B = draw(logits_BV, temperatures_B, uniforms[:, step])
            going, done = _push(live, tokens_B, logprobs_B, entropies_B)
            if done:
                self._keep(live, done, cache)
                if not going:
                    return
                rest = torch.tensor(going, device=logits_BV.device)
                cache.select(rest)
                live = [live[index] for index in going]
                tokens_B, lengths_B = tokens_B[rest], lengths_B[rest.cpu()]
                temperatures_B, uniforms = temperatures_B[rest], uniforms[rest]
            new_mask = torch.ones((len(live), 1), dtype=torch.bool, device=logits_BV.device)
            logits_BV = self._forward(cache, tokens_B[:, None], new_mask, (lengths_B + step)[:, None])

    def _prefill(self, rows: Sequence[Row]) -> tuple[BatchCache, Tensor]:
        """Compute the prompts, each distinct one once: the cache and the logits of the first new token."""
        counts = [self.kept.shared(row.request.episode, row.request.prompt_ids) if self._keeps else 0 for row in rows]
        keys = [index if counts[index] else row.request.prompt_ids.tobytes() for index, row in enumerate(rows)]
        places: dict[int | bytes, int] = {}
        firsts: list[int] = []
        for index, key in enumerate(keys):
            if key not in places:
                places[key] = len(firsts)
                firsts.append(index)
        counts_B = [counts[index] for index in firsts]
        cache = self.kept.assemble(self.model, [rows[index].request.episode for index in firsts], counts_B)
        fresh = [rows[index].request.prompt_ids[counts[index] :] for index in firsts]
        width = max(len(ids) for ids in fresh)
        input_BN = torch.zeros((len(fresh), width), dtype=torch.long)
        mask_BN = torch.zeros((len(fresh), width), dtype=torch.bool)
        for index, ids in enumerate(fresh):
            input_BN[index, width - len(ids) :] = torch.from_numpy(ids.astype(np.int64))
            mask_BN[index, width - len(ids) :] = True
        positions_BN = (mask_BN.cumsum(dim=1) - 1).clamp(min=0) + torch.tensor(counts_B)[:, None]
        ahead = _long_columns([len(ids) for ids in fresh]) if self._plain else 0
        if ahead:
            cache = self._long_rows(cache, input_BN[:, :ahead], mask_BN[:, :ahead], positions_BN[:, :ahead])
        rest = slice(ahead, None)
        logits_BV = self._forward(cache, input_BN[:, rest], mask_BN[:, rest], positions_BN[:, rest])
        if len(firsts) < len(rows):
            order = torch.tensor([places[key] for key in keys], device=logits_BV.device)
            cache.select(order)
            logits_BV = logits_BV[order]
        return cache, logits_BV

    def _long_rows(self, cache: BatchCache, input_BN: Tensor, mask_BN: Tensor, positions_BN: Tensor) -> BatchCache:
        """The cache grown by columns that few rows use, computed for those rows alone."""
        rows = mask_BN.any(dim=1).nonzero()[:, 0]
        mask_BC = None if cache.mask_BC is None else cache.mask_BC[rows.to(cache.mask_BC.device)]
        has_columns = mask_BC is not None and mask_BC.shape[1] > 0
        part = BatchCache(self.model, cache.take(rows) if has_columns else (), mask_BC)
        self._forward(part, input_BN[rows], mask_BN[rows], positions_BN[rows])
        return cache.widened(self.model, part, rows)

    def _forward(self, cache: BatchCache, input_BN: Tensor, mask_BN: Tensor, positions_BN: Tensor) -> Tensor:
        """Logits [B, V] after the last of the new tokens; the cache grows by them."""
        device = self.model.device
        mask_BN = mask_BN.to(device)
        mask_BK = mask_BN if cache.mask_BC is None else torch.cat([cache.mask_BC, mask_BN], dim=1)
        mask = causal_mask(mask_BK, input_BN.shape[1], self.model.dtype) if self._plain else mask_BK.long()
        arguments: dict[str, Any] = {"position_ids": positions_BN.to(device)} if self._positions else {}
        output = self.model(
            input_ids=input_BN.to(device),
            attention_mask=mask,
            past_key_values=cache.hf,
            use_cache=True,
            **self._last_only,
            **arguments,
        )
        cache.mask_BC = mask_BK
        logits: Tensor = output.logits[:, -1]
        return logits

    def _keep(self, live: Sequence[Row], done: Sequence[int], cache: BatchCache) -> None:
        """Keep the caches of finished rows: all of their tokens but the last, which was never computed on."""
        if not self._keeps:
            return
        ids = [
            ints(np.concatenate([live[index].request.prompt_ids, np.array(live[index].ids[:-1], dtype=np.int32)]))
            for index in done
        ]
        episodes = [live[index].request.episode for index in done]
        self.kept.put(episodes, ids, cache, torch.tensor(done, device=self.model.device))


def _push(
    live: Sequence[Row], tokens_B: Tensor, logprobs_B: Tensor, entropies_B: Tensor
) -> tuple[list[int], list[int]]:
    """Add a token to each row: the indices of those that go on, and of those that are finished."""
    going: list[int] = []
    done: list[int] = []
    values = zip(live, tokens_B.tolist(), logprobs_B.tolist(), entropies_B.tolist(), strict=True)
    for index, (row, token, logprob, entropy) in enumerate(values):
        (done if row.push(token, logprob, entropy) else going).append(index)
    return going, done


def _long_columns(lengths_B: Sequence[int]) -> int:
    """How many first columns of a left-padded batch to compute for the rows that use them alone; 0 for little gain.

    One traceback of 100 tokens among 127 results of 9 would otherwise be paid for by every row.
    """
    lengths = sorted(lengths_B, reverse=True)
    width, whole = lengths[0], lengths[0] * len(lengths)
    costs = [(short * len(lengths) + (width - short) * rows, short) for rows, short in enumerate(lengths[1:], start=1)]
    cost, short = min(costs, default=(whole, width))
    return width - short if cost < _WORTH * whole else 0
