"""The model's door: token runs of a batch as padded rows, and the log-probabilities of chosen tokens.

Rows are padded at the right, so that under a causal mask no padding is ever attended to and no mask is needed. Logits
are computed at the chosen positions alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agenthub.trainers.types import Batch, Bools

__all__ = ["Scored", "View", "hidden_states", "token_scores", "views"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a forward pass says of the chosen tokens of a view, each f32[M]."""

    lp: Tensor
    """Log-probability, with gradient."""
    entropy: Tensor
    """Of the token's distribution, nats; detached."""
    logsumexp: Tensor | None = None
    """Of the logits, with gradient; None unless asked for."""
    sum_pi_sq: Tensor | None = None
    """Sum over the vocabulary of squared probabilities; detached; None unless asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Some samples of a batch as rows; B rows of L columns, M chosen tokens."""

    ids: Tensor
    """i64[B, L], padded with 0 at the right."""
    before: Tensor
    """i64[M]: place within B * L of the token before each chosen one."""
    targets: Tensor
    """i64[M]: the chosen tokens' ids."""
    tokens: Tensor
    """i64[M]: the chosen tokens' places within the batch's T."""


def views(batch: Batch, chosen: Bools, *, max_tokens: int, device: torch.device) -> Iterator[View]:
    """Every chosen token exactly once, in views of at most `max_tokens` padded tokens (or one sample), longest first.

    A sample is cut after its last chosen token, and one without any is left out.

    Args:
        chosen: bool[T], a subset of the action tokens.
    """
    starts = np.searchsorted(batch.sample_of_token, np.arange(batch.samples + 1))
    places = np.flatnonzero(chosen)
    if not places.size:
        return
    lengths = np.zeros(batch.samples, np.int64)
    lengths[batch.sample_of_token[places]] = places - starts[batch.sample_of_token[places]] + 1
    rows = np.flatnonzero(lengths)
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    begin = 0
    while begin < rows.size:
        count = max(1, max_tokens // int(lengths[rows[begin]]))
        yield _view(batch, places, rows[begin : begin + count], starts, lengths, device)
        begin += count


def _view(
    batch: Batch,
    places: NDArray[np.intp],
    rows: NDArray[np.intp],
    starts: NDArray[np.intp],
    lengths: NDArray[np.int64],
    device: torch.device,
) -> View:
    width = int(lengths[rows].max())
    columns = np.arange(width)
    source = starts[rows, None] + columns[None, :]
    inside = columns[None, :] < lengths[rows, None]
    ids = np.where(inside, batch.ids[np.where(inside, source, 0)], 0)
    row_of_sample = np.full(batch.samples, -1, np.int64)
    row_of_sample[rows] = np.arange(rows.size)
    mine = places[row_of_sample[batch.sample_of_token[places]] >= 0]
    sample = batch.sample_of_token[mine]
    before = row_of_sample[sample] * width + (mine - starts[sample]) - 1
    return View(
        ids=torch.as_tensor(ids, dtype=torch.int64, device=device),
        before=torch.as_tensor(before, dtype=torch.int64, device=device),
        targets=torch.as_tensor(batch.ids[mine], dtype=torch.int64, device=device),
        tokens=torch.as_tensor(mine, dtype=torch.int64, device=device),
    )


def hidden_states(model: Any, view: View) -> Tensor:
    """f32[M, width]: last hidden state of the model's trunk before each chosen token."""
    body = getattr(model, model.base_model_prefix)
    hidden = body(input_ids=view.ids, use_cache=False).last_hidden_state
    chosen: Tensor = hidden.reshape(-1, hidden.shape[-1]).index_select(0, view.before)
    return chosen


def token_scores(
    model: Any, view: View, *, temperature: float, logsumexp: bool = False, sum_pi_sq: bool = False
) -> Scored:
    """Log-probability of each chosen token and what else is asked for, all from one forward pass.

    Args:
        model: a causal language model of transformers.
        temperature: that of the sampling distribution; everything is of the logits divided by it.
    """
    logits = model.get_output_embeddings()(hidden_states(model, view))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    logs = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        pi = logs.exp()
        entropy = -(pi * logs).sum(dim=-1)
        squares = (pi * pi).sum(dim=-1) if sum_pi_sq else None
    return Scored(
        lp=logs.gather(1, view.targets[:, None])[:, 0],
        entropy=entropy,
        logsumexp=torch.logsumexp(logits, dim=-1) if logsumexp else None,
        sum_pi_sq=squares,
    )
