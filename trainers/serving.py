"""The policy of a run while it lasts: in this process, or a vLLM server that is started here or serves already."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from agenthub.errors import UserError
from agenthub.policies.embedded import EmbeddedPolicy
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_http import Served, check_transfers
from agenthub.policies.vllm_server import Engine, Running, VllmServer, find_engine, ties, vllm_server
from agenthub.policy import Policy
from agenthub.trainers.config import PolicyConfig, Recipe
from agenthub.trainers.sync.directory import start_directory
from agenthub.trainers.sync.embedded import EmbeddedSync
from agenthub.trainers.sync.native import NativeSync
from agenthub.trainers.sync.transfer import Transfer, transfer_of
from agenthub.trainers.sync.vllm import AdapterSync, VllmSync

__all__ = ["Models", "Pushes", "Serving", "server_of", "serving"]


Route = Literal["directory", "adapter", "nccl", "ipc"]


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
        async with _attached(recipe, config.url, folder, sync=_route(recipe, None, models.learner)) as served:
            yield served
        return
    engine = await asyncio.to_thread(find_engine)
    sync = _route(recipe, engine, models.learner)
    base = folder / "serving" / "base"
    await asyncio.to_thread(start_directory, models.learner, models.path, base, untie=engine.device == "cpu")
    started = server_of(recipe.policy, base, recipe.optim.threads, transfer="nccl" if sync == "nccl" else "ipc")
    async with (
        vllm_server(started, log=folder / "serving" / "vllm.log", engine=engine) as running,
        _attached(recipe, running.url, folder, sync=sync, running=running) as served,
    ):
        yield served


def _route(recipe: Recipe, engine: Engine | None, model: Any) -> Route:
    """How weights travel.

    Args:
        engine: of a server that is started here; None where one serves already.

    Raises:
        UserError: what is asked for cannot be had with this engine.
    """
    config = recipe.policy.vllm
    if recipe.policy.lora is not None:
        if config.sync not in ("auto", "directory"):
            raise UserError(f"policy.vllm.sync is {config.sync}; adapters travel as a directory, take auto")
        return "adapter"
    if config.sync != "auto":
        if engine is not None and engine.device == "cpu" and config.sync != "directory":
            raise UserError(f"policy.vllm.sync is {config.sync}, which needs a GPU; the vLLM here runs on a CPU")
        return config.sync
    if engine is None or engine.device == "cpu" or next(model.parameters()).device.type != "cuda":
        return "directory"
    return "nccl" if config.devices is not None else "ipc"


@contextlib.asynccontextmanager
async def _attached(
    recipe: Recipe, url: str, folder: Path, *, sync: Route, running: Running | None = None
) -> AsyncIterator[Serving]:
    config = recipe.policy.vllm
    ended: Callable[[], str | None] = running.ended if running else (lambda: None)
    policy = VllmPolicy(
        url,
        model=config.served_name,
        in_flight=config.max_num_seqs,
        retry_s=config.retry_s,
        entropy_top_k=config.entropy_top_k,
        ended=ended,
    )
    transfer = transfer_of(sync) if sync in ("nccl", "ipc") else None
    try:
        served = await policy.attach()
        _check_room(recipe, served)
        if transfer is not None:
            check_transfers(served)
        yield Serving(policy=policy, sync=_pushes(recipe, policy, served, folder / "serving", sync, transfer))
    finally:
        if transfer is not None:
            transfer.close()
        await policy.close()


def _check_room(recipe: Recipe, served: Served) -> None:
    """Raises UserError where a turn alone would fill the server's context."""
    if recipe.rollout.max_tokens >= served.context:
        raise UserError(
            f"rollout.max_tokens is {recipe.rollout.max_tokens}, the server's context is {served.context} tokens: "
            "no room for a prompt; make one smaller or the other larger (policy.vllm.context)"
        )


def _pushes(
    recipe: Recipe, policy: VllmPolicy, served: Served, folder: Path, sync: Route, transfer: Transfer | None
) -> Pushes:
    mode, bound = recipe.policy.vllm.pause, recipe.sync_bound
    rounded = recipe.policy.vllm.dtype == "bfloat16"
    if transfer is not None:
        dtype = torch.bfloat16 if rounded else torch.float32
        return NativeSync(policy, transfer, bound=bound, mode=mode, dtype=dtype)
    kind = AdapterSync if sync == "adapter" else VllmSync
    return kind(policy, folder, bound=bound, mode=mode, untie=not ties(Path(served.root)), rounded=rounded)


def server_of(
    policy: PolicyConfig, model: Path, threads: int, *, transfer: Literal["nccl", "ipc"] = "nccl"
) -> VllmServer:
    """The server that a recipe asks for."""
    config = policy.vllm
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
        transfer=transfer,
        devices=config.devices,
        lora_rank=policy.lora.rank if policy.lora else 0,
        extra=config.flags,
    )
