"""The policy of a run while it lasts: in this process, or a vLLM server that is started here or serves already."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agenthub.policies.embedded import EmbeddedPolicy
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_server import Running, VllmServer, find_engine, vllm_server
from agenthub.policy import Policy
from agenthub.trainers.config import Recipe, VllmConfig
from agenthub.trainers.sync.directory import start_directory
from agenthub.trainers.sync.embedded import EmbeddedSync
from agenthub.trainers.sync.vllm import VllmSync

__all__ = ["Models", "Pushes", "Serving", "server_of", "serving"]


class Pushes(Protocol):
    """A weight sync."""

    async def push(self, model: Any, version: int) -> float:
        """Serve the model's weights as `version`; the error of its log-probabilities afterwards, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The model that trains, and where it came from."""

    path: Path
    learner: Any
    tokenizer: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The policy that serves, and how weights reach it."""

    policy: Policy
    sync: Pushes


@contextlib.asynccontextmanager
async def serving(recipe: Recipe, models: Models, folder: Path) -> AsyncIterator[Serving]:
    """The policy of a recipe until the body ends; a server's log and weights lie in `folder`.

    Raises:
        UserError: no vLLM is here, the server does not start or serves another model.
        HostFault: the server does not answer.
    """
    if recipe.policy.uses == "embedded":
        policy = await asyncio.to_thread(EmbeddedPolicy, models.path)
        try:
            yield Serving(policy=policy, sync=EmbeddedSync(policy, bound=recipe.sync_bound))
        finally:
            await policy.close()
        return
    config = recipe.policy.vllm
    if config.url is not None:
        async with _attached(config, config.url, recipe, folder) as served:
            yield served
        return
    base = await asyncio.to_thread(
        start_directory, models.learner, models.path, folder / "serving" / "base", untie=True
    )
    async with (
        vllm_server(server_of(config, base, recipe.optim.threads), log=folder / "serving" / "vllm.log") as running,
        _attached(config, running.url, recipe, folder, running) as served,
    ):
        yield served


@contextlib.asynccontextmanager
async def _attached(
    config: VllmConfig, url: str, recipe: Recipe, folder: Path, running: Running | None = None
) -> AsyncIterator[Serving]:
    ended: Callable[[], str | None] = running.ended if running else (lambda: None)
    policy = VllmPolicy(
        url,
        model=config.served_name,
        in_flight=config.max_num_seqs,
        retry_s=config.retry_s,
        entropy_top_k=config.entropy_top_k,
        ended=ended,
    )
    try:
        await policy.attach()
        sync = VllmSync(
            policy,
            folder / "serving",
            bound=recipe.sync_bound,
            mode=config.pause,
            rounded=config.dtype == "bfloat16",
        )
        yield Serving(policy=policy, sync=sync)
    finally:
        await policy.close()


def server_of(config: VllmConfig, model: Path, threads: int) -> VllmServer:
    """The server that a recipe asks for."""
    find_engine()
    return VllmServer(
        model=model.absolute(),
        served_name=config.served_name,
        port=config.port,
        dtype=config.dtype,
        context=config.context,
        max_num_seqs=config.max_num_seqs,
        kv_cache_mb=config.kv_cache_mb,
        gpu_memory=config.gpu_memory,
        max_logprobs=max(1, config.entropy_top_k),
        threads=threads,
        extra=config.flags,
    )
