"""Drawing tokens: each row has a seed of its own, so its tokens do not depend on what is sampled beside it.

Axes in names: B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from agenthub.policy import Request
from agenthub.records import Finish, Floats, Generation, floats, ints

__all__ = ["Row", "draw"]


@dataclass(slots=True)
class Row:
    """One request while it is being sampled."""

    place: int
    """Its index among the requests."""
    request: Request
    budget: int
    """Most tokens that the request and the model's context allow."""
    draws: Floats
    """f32[budget]: uniform numbers in [0, 1), one a token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    finish: Finish = Finish.LENGTH

    @classmethod
    def of(cls, place: int, request: Request, room: int) -> Row:
        """A row with room for `room` more tokens of context."""
        budget = min(request.sampling.max_tokens, room)
        generator = np.random.Generator(np.random.Philox(key=request.seed % 2**128))
        return cls(place, request, budget, generator.random(budget, dtype=np.float32))

    def push(self, token: int, logprob: float, entropy: float) -> bool:
        """Add one token; True where the row is finished."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.entropies.append(entropy)
        if token in self.request.stop_ids or self.request.complete(self.ids):
            self.finish = Finish.STOP
            return True
        return len(self.ids) >= self.budget

    def generation(self, policy: str, version: int) -> Generation:
        """The record of a finished row."""
        return Generation(
            policy=policy,
            prompt_ids=ints(self.request.prompt_ids),
            ids=ints(self.ids),
            logprobs=floats(np.minimum(np.array(self.logprobs, dtype=np.float32), 0.0)),
            versions=((0, version),) if self.ids else (),
            finish=self.finish,
            entropies=floats(self.entropies),
        )


def draw(logits_BV: Tensor, temperatures_B: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their log-probabilities and the entropies of their distributions, each [B].

    Sampled by the inverse of the cumulative distribution: the first token whose cumulative probability exceeds the
    uniform number. Temperature 0 takes the most likely token; its log-probability is that at temperature 1.
    """
    greedy_B = temperatures_B == 0
    scale_B = torch.where(greedy_B, torch.ones_like(temperatures_B), temperatures_B)
    logprobs_BV = torch.log_softmax(logits_BV.float() / scale_B[:, None], dim=-1)
    probs_BV = logprobs_BV.exp()
    cumulative_BV = probs_BV.cumsum(dim=-1)
    total_B = cumulative_BV[:, -1]
    below_B = torch.minimum(uniforms_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    tokens_B = torch.searchsorted(cumulative_BV, below_B[:, None], right=True)[:, 0]
    if bool(greedy_B.any()):
        tokens_B = torch.where(greedy_B, logprobs_BV.argmax(dim=-1), tokens_B)
    chosen_B = logprobs_BV.gather(1, tokens_B[:, None])[:, 0]
    return tokens_B, chosen_B, torch.special.entr(probs_BV).sum(dim=-1)
