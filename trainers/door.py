"""The model's door as a module: views in, scores out; and whether the model can take packed views.

A module, so that what wraps modules (sharding, mixed precision, checkpoints of activations) sees one whole forward pass
from ids to log-probabilities, the output layer included.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agenthub.errors import UserError
from agenthub.trainers.attention import NAME, attend, layout_of, varlen_kernel
from agenthub.trainers.logits import Scores
from agenthub.trainers.packing import packs
from agenthub.trainers.types import Batch, Bools
from agenthub.trainers.view import View, hidden_states, most_logits, token_scores, views

__all__ = ["Door", "States"]

_SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of a config by which a model changes its logits after the output layer, which is not done here."""
_PROBE = (12, 17, 9)
"""Lengths of three runs that begin alike."""


class States(NamedTuple):
    """A named tuple, so that hooks of torch find the tensor."""

    hidden: Tensor
    """[M, width]: last hidden state before each chosen token."""


class Door(torch.nn.Module):
    """A causal language model of transformers that scores chosen tokens of views."""

    def __init__(self, model: Any, *, dtype: torch.dtype | None = None, elements: int | None = None) -> None:
        """
        Args:
            dtype: in which the model computes; None is that of its weights.
            elements: most logits that are held at once; None is what suits the device.

        Raises:
            UserError: the model changes its logits in a way that is not known here.
        """
        super().__init__()
        self.model = model
        self.dtype = dtype or next(model.parameters()).dtype
        self.device: torch.device = next(model.parameters()).device
        self.elements = elements or most_logits(self.device)
        _check_logits(model)
        self.why_padded: str | None = _why_padded(model)
        """Why views are padded rows; None where they are packed."""

    def views(self, batch: Batch, chosen: Bools, *, max_tokens: int, part: tuple[int, int] = (0, 1)) -> list[View]:
        """Every chosen token exactly once, in views that this model takes.

        Args:
            part: (n, of): the n-th of so many equal shares, each of as many views; some may choose no token.
        """
        return views(
            batch,
            chosen,
            max_tokens=max_tokens,
            device=self.device,
            packed=self.why_padded is None,
            varlen=varlen_kernel(self.device, self.dtype) is not None,
            part=part,
        )

    def forward(self, view: View, *, temperature: float = 1.0, states: bool = False) -> Scores | States:
        """Scores of the chosen tokens at the temperature, or the states before them."""
        if states:
            return States(hidden_states(self.model, view))
        return token_scores(self.model, view, temperature=temperature, elements=self.elements)

    def scores(self, view: View, *, temperature: float) -> Scores:
        """The forward pass with its hooks, for the scores."""
        scores: Scores = self(view, temperature=temperature)
        return scores

    def states(self, view: View) -> Tensor:
        """The forward pass with its hooks, for the states."""
        found: States = self(view, states=True)
        return found.hidden


def _check_logits(model: Any) -> None:
    config = model.config.get_text_config()
    for name in _SCALED:
        value = getattr(config, name, None)
        if value not in (None, 0, 1, 1.0):
            raise UserError(f"{type(model).__name__} has {name} {value}; only plain logits can be trained on")


def _why_padded(model: Any) -> str | None:
    """Prepare the model for packed views; why it cannot take them, None where it can."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    name, config = type(model).__name__, model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return f"{name} has layers of {', '.join(sorted(kinds))}; only full attention can be packed"
    body = getattr(model, model.base_model_prefix)
    if not getattr(model, "_supports_attention_backend", False):
        return f"{name} does not let its attention be replaced"
    if "position_ids" not in inspect.signature(body.forward).parameters:
        return f"{name} takes no position ids"
    before = model.config._attn_implementation
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    error = _probe(model)
    if error is not None:
        model.set_attn_implementation(before)
        return f"{name} {error}"
    return None


@torch.no_grad()
def _probe(model: Any) -> str | None:
    """What is wrong with packed states of three runs, held against each run alone; None where nothing is."""
    parameter = next(model.parameters())
    if parameter.device.type == "meta":
        return None
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    ids = np.random.default_rng(0).integers(0, vocabulary, (2, max(_PROBE))).astype(np.int32)
    runs = [np.concatenate([ids[0, :8], ids[n % 2, 8:length]]) for n, length in enumerate(_PROBE)]
    (pack,) = packs(runs, max_tokens=sum(_PROBE))
    varlen = varlen_kernel(parameter.device, parameter.dtype) is not None
    nothing = torch.zeros(0, dtype=torch.int64, device=parameter.device)
    every = torch.arange(pack.ids.size, device=parameter.device)
    packed = View(
        ids=torch.as_tensor(pack.ids, device=parameter.device)[None],
        positions=torch.as_tensor(pack.positions, device=parameter.device)[None],
        layout=layout_of(pack, parameter.device, varlen=varlen),
        before=every,
        targets=nothing,
        tokens=nothing,
    )
    together = hidden_states(model, packed)
    for n, path in zip(pack.runs, pack.paths, strict=True):
        row = torch.as_tensor(runs[n], dtype=torch.int64, device=parameter.device)
        before = torch.arange(row.numel(), device=parameter.device)
        alone = hidden_states(model, View(ids=row[None], before=before, targets=nothing, tokens=nothing))
        gap = (together[torch.as_tensor(path, device=parameter.device)] - alone).abs().max()
        bound = (1e-4 if parameter.dtype in (torch.float32, torch.float64) else 0.1) * alone.abs().max()
        if not gap <= bound:
            return f"gives other states for packed runs, by {float(gap):.2g}"
    return None
