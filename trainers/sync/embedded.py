"""Weight sync to a policy in this process: a copy, and a check that it serves what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from agenthub.errors import HostFault
from agenthub.policy import Request, Sampling
from agenthub.records import Generation, ints
from agenthub.trainers.adapters import merged_state
from agenthub.trainers.view import View, token_scores

__all__ = ["EmbeddedSync", "Served"]

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 4, 8, 6


class Served(Protocol):
    """A policy whose weights can be replaced."""

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """As `policy.Policy`."""

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Serve these weights from now on."""

    def weight_version(self) -> int:
        """Version of the weights that serve now."""


class EmbeddedSync:
    """Copies weights into a policy of this process."""

    def __init__(self, policy: Served, *, bound: float) -> None:
        """
        Args:
            bound: largest difference in nats between the log-probability that the policy reports for a token and the
                trained model's for the same token.
        """
        self._policy, self._bound = policy, bound

    async def push(self, model: Any, version: int) -> float:
        """Copy the model's weights, then sample fixed prompts and compare log-probabilities; returns the worst error.

        Raises:
            HostFault: another version serves afterwards, or the error is above the bound.
        """
        self._policy.load_state(merged_state(model), version)
        if self._policy.weight_version() != version:
            raise HostFault(f"weight version {version} was pushed, {self._policy.weight_version()} serves")
        error = await self._parity(model)
        if not error <= self._bound:
            raise HostFault(
                f"after the push of version {version} the policy's log-probabilities are {error:.2g} nats off the "
                f"trained model's; the bound is {self._bound:.2g}"
            )
        return error

    async def _parity(self, model: Any) -> float:
        vocabulary = int(model.get_input_embeddings().num_embeddings)
        prompts = np.random.default_rng(0).integers(0, vocabulary, (PROMPTS, PROMPT_TOKENS))
        requests = [
            Request(
                prompt_ids=ints(prompt),
                sampling=Sampling(temperature=1.0, max_tokens=NEW_TOKENS),
                seed=index,
                stop_ids=frozenset(),
                complete=_never,
                episode=f"parity-{index}",
            )
            for index, prompt in enumerate(prompts)
        ]
        sampled = await self._policy.generate(requests)
        device = next(model.parameters()).device
        ids = np.stack([np.concatenate([one.prompt_ids, one.ids]) for one in sampled])
        before = np.arange(ids.shape[0])[:, None] * ids.shape[1] + np.arange(PROMPT_TOKENS - 1, ids.shape[1] - 1)
        view = View(
            ids=torch.as_tensor(ids, dtype=torch.int64, device=device),
            before=torch.as_tensor(before.reshape(-1), device=device),
            targets=torch.as_tensor(ids[:, PROMPT_TOKENS:].reshape(-1), dtype=torch.int64, device=device),
            tokens=torch.as_tensor(before.reshape(-1), device=device),
        )
        with torch.no_grad():
            trained = token_scores(model, view, temperature=1.0).lp
        served = np.concatenate([one.logprobs for one in sampled])
        return float(np.abs(trained.cpu().numpy() - served).max())


def _never(ids: Sequence[int]) -> bool:
    return False
