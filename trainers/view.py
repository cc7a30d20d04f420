"""The model's door: token runs of a batch as views that a model computes at once, and what it says of chosen tokens.

A view is packed where the model's layers can attend within token runs (see `packing`), else rows padded at the right,
so that under a causal mask no padding is ever attended to. Logits are computed before the chosen tokens alone, some at
a time (see `logits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agenthub.trainers.attention import Layout, layout_of
from agenthub.trainers.logits import Scores, token_logits
from agenthub.trainers.packing import Indices, Pack, packs
from agenthub.trainers.types import Batch, Bools

__all__ = ["LOGITS", "View", "hidden_states", "most_logits", "token_scores", "views"]

LOGITS = 1 << 24
"""Most logits that are held at once on a CPU, where few fit its caches."""
_LOGITS_GPU = 1 << 27
"""On a GPU: each part reads the output layer's weight and writes its gradient anew, some 1 GB for 150,000 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Some token runs of a batch; M chosen tokens."""

    ids: Tensor
    """i64[B, L], padded with 0 at the right; packed i64[1, P]."""
    before: Tensor
    """i64[M]: place within B * L of the token before each chosen one."""
    targets: Tensor
    """i64[M]: the chosen tokens' ids."""
    tokens: Tensor
    """i64[M]: the chosen tokens' places within the batch's T."""
    positions: Tensor | None = None
    """i64[1, P]: place of each token within its run; None where rows are padded."""
    layout: Layout | None = None
    """Who sees whom; None where rows are padded."""


def views(
    batch: Batch,
    chosen: Bools,
    *,
    max_tokens: int,
    device: torch.device,
    packed: bool = False,
    varlen: bool = False,
    part: tuple[int, int] = (0, 1),
) -> list[View]:
    """Every chosen token exactly once, in views of at most `max_tokens` computed tokens (or one sample).

    A sample is cut before its last chosen token, and one without any is left out.

    Args:
        chosen: bool[T], a subset of the action tokens.
        packed: for a model that can attend within token runs; else rows are padded.
        varlen: lay packed views out for a kernel that takes rows of many lengths.
        part: (n, of): the n-th of so many equal shares, each of as many views; the last ones may choose no token.
    """
    places = np.flatnonzero(chosen)
    starts = np.searchsorted(batch.sample_of_token, np.arange(batch.samples + 1))
    last = np.full(batch.samples, -1, np.int64)
    last[batch.sample_of_token[places]] = places
    samples = np.flatnonzero(last >= 0)
    runs = [batch.ids[starts[s] : last[s]] for s in samples]
    found = list(packs(runs, max_tokens=max_tokens, share=packed))
    number, of = part
    mine = [found[n] if n < len(found) else None for n in range(number, -(-len(found) // of) * of, of)]
    made = []
    for pack in mine:
        if pack is None:
            # Every rank computes as often as the others; this one on one token that nothing is asked of.
            pack, rows = next(packs([batch.ids[:1]], max_tokens=1)), samples[:0]
            made.append(_view(batch, places[:0], rows, starts, pack, device, packed, varlen))
        else:
            made.append(_view(batch, places, samples[list(pack.runs)], starts, pack, device, packed, varlen))
    return made


def _view(
    batch: Batch,
    places: Indices,
    rows: Indices,
    starts: Indices,
    pack: Pack,
    device: torch.device,
    packed: bool,
    varlen: bool,
) -> View:
    if not packed:
        return _padded(batch, places, rows, starts, pack, device)
    return View(
        ids=torch.as_tensor(pack.ids, device=device)[None],
        positions=torch.as_tensor(pack.positions, device=device)[None],
        layout=layout_of(pack, device, varlen=varlen),
        **_chosen(batch, places, rows, starts, pack.paths[: rows.size], device),
    )


def _padded(batch: Batch, places: Indices, rows: Indices, starts: Indices, pack: Pack, device: torch.device) -> View:
    width = max(path.size for path in pack.paths)
    ids = np.zeros((len(pack.runs), width), np.int64)
    for row, path in enumerate(pack.paths):
        ids[row, : path.size] = pack.ids[path]
    where = [row * width + np.arange(path.size) for row, path in enumerate(pack.paths[: rows.size])]
    return View(ids=torch.as_tensor(ids, device=device), **_chosen(batch, places, rows, starts, where, device))


def _chosen(
    batch: Batch, places: Indices, rows: Indices, starts: Indices, paths: Sequence[Indices], device: torch.device
) -> dict[str, Any]:
    """What a view says of its chosen tokens; a path has the places of a sample's tokens within the view."""
    before, tokens = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for sample, path in zip(rows.tolist(), paths, strict=True):
        lowest, highest = np.searchsorted(places, starts[sample : sample + 2])
        mine = places[lowest:highest]
        before.append(path[mine - starts[sample] - 1])
        tokens.append(mine)
    chosen = np.concatenate(tokens)
    found = {"before": np.concatenate(before), "targets": batch.ids[chosen].astype(np.int64), "tokens": chosen}
    return {name: torch.as_tensor(row, device=device) for name, row in found.items()}


def most_logits(device: torch.device) -> int:
    """How many are held at once where nothing is asked for."""
    return _LOGITS_GPU if device.type == "cuda" else LOGITS


def hidden_states(model: Any, view: View) -> Tensor:
    """[M, width]: last hidden state of the model's trunk before each chosen token."""
    body = getattr(model, model.base_model_prefix)
    packed: dict[str, Any] = {}
    if view.layout is not None:
        # Of four axes, so that transformers takes it for the mask and makes none of its own.
        mask = torch.zeros((1, 1, 1, 1), device=view.ids.device)
        packed = {"position_ids": view.positions, "attention_mask": mask, "layout": view.layout}
    hidden = body(input_ids=view.ids, use_cache=False, **packed).last_hidden_state
    chosen: Tensor = hidden.reshape(-1, hidden.shape[-1]).index_select(0, view.before)
    return chosen


def token_scores(model: Any, view: View, *, temperature: float, elements: int = LOGITS) -> Scores:
    """Log-probability of each chosen token and what else comes of its logits, all from one forward pass.

    Args:
        model: a causal language model of transformers.
        temperature: that of the sampling distribution; everything is of the logits divided by it.
        elements: most logits that are held at once.
    """
    head = model.get_output_embeddings()
    return token_logits(
        hidden_states(model, view), head.weight, head.bias, view.targets, temperature=temperature, elements=elements
    )
