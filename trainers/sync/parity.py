"""The proof of a push: log-probabilities of the same tokens, as the server tells them and as the model has them.

The prompts are the same after every push, and two are longer than a server's cache block, so that keys and values kept
from older weights show as well as a layer that was left behind. Half are drawn at another temperature, so that a server
which tells log-probabilities of another distribution than it samples from shows too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from agenthub.policy import Request, Sampling
from agenthub.records import Generation, ints

__all__ = ["Parity", "Samples", "parity"]

LENGTHS = (8, 200, 8, 200)
TEMPERATURES = (1.0, 1.0, 0.7, 0.7)
NEW_TOKENS = 16


class Samples(Protocol):
    """A policy that serves."""

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """As `policy.Policy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the server's log-probabilities are from the trained model's, in nats."""

    worst: float
    mean: float


async def parity(policy: Samples, model: Any, *, context: int) -> Parity:
    """Sample the fixed prompts and score what came with the trained model.

    Args:
        context: of the server, in tokens; longer prompts are cut.
    """
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    rng = np.random.default_rng(0)
    requests = [
        Request(
            prompt_ids=ints(rng.integers(0, vocabulary, length)[: max(1, context - NEW_TOKENS)]),
            sampling=Sampling(temperature=temperature, max_tokens=NEW_TOKENS),
            seed=index,
            stop_ids=frozenset(),
            complete=_never,
            episode=f"parity-{index}",
        )
        for index, (length, temperature) in enumerate(zip(LENGTHS, TEMPERATURES, strict=True))
    ]
    sampled = await policy.generate(requests)
    errors = np.concatenate(
        [
            np.abs(_scores(model, one, request.sampling.temperature).cpu().numpy() - one.logprobs)
            for one, request in zip(sampled, requests, strict=True)
        ]
    )
    return Parity(worst=float(errors.max()), mean=float(errors.mean()))


@torch.no_grad()
def _scores(model: Any, generation: Generation, temperature: float) -> Tensor:
    """f32[A]: log-probabilities of the sampled tokens under the model."""
    device = next(model.parameters()).device
    ids = torch.as_tensor(np.concatenate([generation.prompt_ids, generation.ids]), dtype=torch.int64, device=device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, generation.prompt_ids.size - 1 : -1].float()
    targets = ids[generation.prompt_ids.size :, None]
    return torch.log_softmax(logits / temperature, dim=-1).gather(1, targets)[:, 0]


def _never(ids: Sequence[int]) -> bool:
    return False
