"""Policy: gives generations for prompt ids. The protocol that `policies.*` implement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from agenthub.records import Generation, Ints

__all__ = ["Bounded", "Policy", "Request", "Sampling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 1.0
    """0.0 is greedy. Log-probabilities are those of the distribution at this temperature (at 1.0 where greedy)."""
    max_tokens: int = 64
    """Most tokens of one turn."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 10.0:
            raise ValueError(f"sampling.temperature is {self.temperature}; expected 0 to 10")
        if self.max_tokens < 1:
            raise ValueError("sampling.max_tokens must be 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One turn to sample."""

    prompt_ids: Ints
    sampling: Sampling
    seed: int
    """Seed of this turn alone: the same seed, weights and prompt give the same tokens."""
    stop_ids: frozenset[int]
    complete: Callable[[Sequence[int]], bool]
    """True as soon as the sampled ids hold a complete action; called after every token."""
    episode: str = ""
    """Requests of one episode share it, so that a policy may keep the cache of the last turn."""


class Policy(Protocol):
    """A served model."""

    name: str
    lockstep: bool
    """True where a batch of requests is far cheaper than the same requests one by one (the embedded policy)."""

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Sample one turn for each request, in order.

        Raises:
            UserError: a prompt is longer than the model's context.
            HostFault: the engine is gone.
        """

    def weight_version(self) -> int:
        """Version of the weights that serve now."""

    async def forget(self, episodes: Sequence[str]) -> None:
        """Drop what is kept for these episodes; unknown ones are ignored."""

    async def close(self) -> None:
        """Free everything."""


@runtime_checkable
class Bounded(Protocol):
    """What a policy whose context has an end has besides `Policy`."""

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together."""
