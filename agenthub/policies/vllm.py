"""The vLLM policy: turns sampled by a vLLM server over HTTP, ids in, ids and log-probabilities out.

A request is streamed and given up as soon as its action is complete; the server then says which weights sampled which
tokens. An attempt that breaks is dropped whole and sampled again with the same seed, so no token is ever recorded twice
and no length is favoured. Turns of an episode extend each other by ids, which is what the server's prefix cache is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agenthub.errors import HostFault, UserError
from agenthub.policies.vllm_http import Lost, PauseMode, Served, VllmHttp
from agenthub.policies.vllm_sampling import Reading, request_body
from agenthub.policies.vllm_server import check_fits
from agenthub.policy import Request
from agenthub.records import Generation

__all__ = ["VllmPolicy"]

T = TypeVar("T")
Receive = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Has the server's workers take a part of the weights; back when they have it."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_QUIET_S = 3.0
"""Without an answer for so long, a person is told that it is waited for."""
_TOLD_EVERY_S = 30.0
_logger = logging.getLogger("agenthub.policy")


class VllmPolicy:
    """A model that vLLM serves. Use `attach`, or `vllm_server.vllm_server` to start one."""

    lockstep = False

    def __init__(
        self,
        url: str,
        *,
        model: str = "policy",
        name: str = "policy",
        in_flight: int = 64,
        retry_s: float = 60.0,
        entropy_top_k: int = 0,
        api_key: str | None = None,
        ended: Callable[[], str | None] = lambda: None,
    ) -> None:
        """
        Args:
            model: what the server calls the model.
            in_flight: most requests at the server; more wait here, in the order in which they came.
            retry_s: how long a request is tried again after it was lost.
            entropy_top_k: entropies over so many of the likeliest tokens (`Generation.entropies`); 0 tells none.
            ended: why the server's process is over, where this side can know.
        """
        self.name, self.model = name, model
        self.http = VllmHttp(url, api_key=api_key, ended=ended)
        self.retried = 0
        """Attempts that were lost and made again."""
        self._slots = asyncio.Semaphore(in_flight)
        self._retry_s, self._top_k = retry_s, entropy_top_k
        self._asked = model
        self._served: Served | None = None
        self._version = 0
        self._closed = False
        self._told = -math.inf

    async def attach(self) -> Served:
        """Ask the server what it serves; must come first.

        Raises:
            UserError: it serves another model, is too old or lacks a route.
            HostFault: it does not answer.
        """
        served = await self._tried(lambda: self.http.served(self.model))
        told = await self._tried(self.http.weight_version)
        if told == "default":
            await self._tried(lambda: self.http.set_weight_version(0))
            told = "0"
        if not told.isdigit():
            raise UserError(f"{self.http.url} names its weights {told!r}; expected a number: another trainer owns it")
        self._served, self._version = served, int(told)
        return served

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together.

        Raises:
            HostFault: not attached.
        """
        if self._served is None:
            raise HostFault(f"policy {self.name!r} is not attached to its server")
        return self._served.context

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Sample one turn for each request, in order.

        Raises:
            UserError: a prompt is empty or fills the model's context, or the server refuses a request.
            HostFault: the server is gone, or told what cannot be.
        """
        if self._closed:
            raise HostFault(f"policy {self.name!r} is closed")
        for request in requests:
            if not 0 < request.prompt_ids.size < self.context:
                raise UserError(
                    f"policy {self.name!r}: a prompt has {request.prompt_ids.size} tokens; "
                    f"expected 1 to {self.context - 1}, so that the context of {self.context} has room for an answer"
                )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._turn(request)) for request in requests]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    def weight_version(self) -> int:
        """Version of the weights that serve now."""
        return self._version

    async def load_directory(self, folder: Path, version: int, *, mode: PauseMode = "keep") -> None:
        """Serve the weights in a directory from now on, as `version`.

        Args:
            mode: of requests in flight. Those that are kept go on under the new weights, over a context that is
                computed anew, and their tokens say so.

        Raises:
            UserError: the directory holds a model of another shape.
            HostFault: the server failed, or serves another version afterwards. It stays paused: what it holds is mixed.
        """
        if self._served is not None:
            await asyncio.to_thread(check_fits, Path(self._served.root), folder)
        async with self._replacing(version, mode):
            await self._tried(lambda: self.http.reload(folder))

    async def load_adapter(self, folder: Path, version: int, *, mode: PauseMode = "keep") -> None:
        """Serve the model with a LoRA adapter, without a merge, from now on. Args and errors as `load_directory`."""
        name = f"{self.model}-adapter"
        async with self._replacing(version, mode, asked=name):
            await self._tried(lambda: self.http.load_adapter(name, folder))

    async def world_size(self) -> int:
        """Workers that take weights. Raises HostFault."""
        return await self._tried(self.http.world_size)

    async def join_transfer(self, init: Mapping[str, Any]) -> None:
        """Have the server's workers meet a trainer that sends weights; back when they have met.

        Raises:
            UserError, HostFault: the server cannot, or has another backend.
        """
        await _whole(self.http.join_transfer(init))

    async def load_transferred(
        self, send: Callable[[Receive], Awaitable[None]], version: int, *, mode: PauseMode
    ) -> None:
        """Serve weights that a trainer sends, as `version`. Args and errors as `load_directory`.

        Args:
            send: sends all of them; what it is given has the workers take a part, and must be called for each.
        """
        async with self._replacing(version, mode):
            await _whole(self.http.start_update())
            await send(lambda update: _whole(self.http.receive(update)))
            await _whole(self.http.finish_update(version))

    @contextlib.asynccontextmanager
    async def _replacing(self, version: int, mode: PauseMode, *, asked: str | None = None) -> AsyncIterator[None]:
        """The body changes the weights of a server that samples nothing; it resumes only where all of it went well.

        Args:
            asked: the name under which turns are asked for afterwards; None is the model's own.
        """
        await self._tried(lambda: self.http.pause(mode))
        yield
        await self._tried(self.http.forget_prefixes)
        await self._tried(lambda: self.http.set_weight_version(version))
        told = await self._tried(self.http.weight_version)
        if told != str(version):
            raise HostFault(f"weight version {version} was pushed, the server tells {told!r}")
        self._version, self._asked = version, asked or self.model
        await self._tried(self.http.resume)

    async def forget(self, episodes: Sequence[str]) -> None:
        """Nothing is kept by episode: the server drops the least used prefixes by itself."""

    async def close(self) -> None:
        """Close the connections; the server goes on. Safe to call again."""
        self._closed = True
        await self.http.close()

    async def _turn(self, request: Request) -> Generation:
        async with self._slots:
            return await self._tried(lambda: self._attempt(request), counted=True)

    async def _attempt(self, request: Request) -> Generation:
        """One attempt under an id of its own, read to its end."""
        budget = min(request.sampling.max_tokens, self.context - request.prompt_ids.size)
        reading = Reading(request, budget=budget, top_k=self._top_k)
        body = request_body(request, request_id=uuid.uuid4().hex, model=self._asked, budget=budget, top_k=self._top_k)
        given_up = False
        stream = self.http.stream("/inference/v1/generate", body)
        async with contextlib.aclosing(stream):
            async for event in stream:
                ended = any(choice.get("finish_reason") is not None for choice in event["choices"])
                if reading.add(event) and not ended and not given_up and reading.request_id:
                    given_up = True
                    await self.http.abort(reading.request_id)
        if reading.kept is None:
            raise Lost("the server ended a stream without a reason")
        return reading.generation(self.name)

    async def _tried(self, work: Callable[[], Awaitable[T]], *, counted: bool = False) -> T:
        """Do it until it is not lost. Raises HostFault when `retry_s` is over."""
        began, wait_s = time.monotonic(), _FIRST_WAIT_S
        deadline = began + self._retry_s
        while True:
            try:
                return await work()
            except Lost as lost:
                if time.monotonic() + wait_s > deadline:
                    raise HostFault(f"policy {self.name!r}: {lost}; tried for {self._retry_s:.0f} s") from lost
                now = time.monotonic()
                if now - began >= _QUIET_S and now - self._told >= _TOLD_EVERY_S:
                    self._told = now
                    _logger.warning("waiting up to %g s for policy %r: %s", self._retry_s, self.name, lost)
            if counted:
                self.retried += 1
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


async def _whole(work: Awaitable[None]) -> None:
    """Part of a transfer, which cannot be tried again. Raises HostFault where its answer is lost."""
    try:
        await work
    except Lost as lost:
        raise HostFault(f"the transfer of weights broke off: {lost}") from lost
