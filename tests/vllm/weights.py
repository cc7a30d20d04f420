"""Models whose weights have moved, and log-probabilities from a forward pass of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agenthub.policies.embedded import TINY, load_model
from agenthub.policy import Request
from agenthub.records import Generation


def moved(model: Any, seed: int, size: float = 0.02) -> Any:
    """The same model with other weights."""
    other = load_model(TINY)[0]
    other.load_state_dict(model.state_dict())
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += size * torch.randn_like(parameter)
    return other


def scored(model: Any, asked: Sequence[Request], made: Sequence[Generation]) -> float:
    """The largest difference of a log-probability from a full forward pass."""
    worst = 0.0
    for one, generation in zip(asked, made, strict=True):
        ids = torch.tensor([[*one.prompt_ids.tolist(), *generation.ids.tolist()]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, one.prompt_ids.size - 1 : -1]
        logs = torch.log_softmax(logits / (one.sampling.temperature or 1.0), dim=-1)
        told = logs.gather(1, ids[0, one.prompt_ids.size :, None])[:, 0].numpy()
        worst = max(worst, float(np.abs(told - generation.logprobs).max()))
    return worst
