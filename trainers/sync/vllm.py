"""Weight sync to a vLLM server by a directory that it reloads, and what every sync to it ends with: a probe."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from agenthub.errors import HostFault
from agenthub.policy import Request
from agenthub.records import Generation
from agenthub.trainers.adapters import write_adapter
from agenthub.trainers.sync.directory import write_weights
from agenthub.trainers.sync.parity import Parity, parity

__all__ = ["AdapterSync", "LoadsDirectories", "Probed", "Serves", "VllmSync"]


class Serves(Protocol):
    """A policy over a server."""

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """As `policy.Policy`."""

    def weight_version(self) -> int:
        """Version of the weights that serve now."""


class LoadsDirectories(Serves, Protocol):
    """A policy whose server takes weights, or an adapter, from a directory."""

    async def load_directory(
        self, folder: Path, version: int, *, mode: Literal["keep", "wait", "abort"] = "keep"
    ) -> None:
        """Serve these weights from now on."""

    async def load_adapter(
        self, folder: Path, version: int, *, mode: Literal["keep", "wait", "abort"] = "keep"
    ) -> None:
        """Serve the model with this adapter from now on."""


class Probed:
    """A push, and the proof that it arrived: version and log-probabilities. `deliver` is a subclass's own."""

    def __init__(self, policy: Serves, *, bound: float, rounded: bool) -> None:
        """
        Args:
            bound: largest error in nats after a push: the worst token's, or the mean where the server rounds.
            rounded: the server computes in bf16.
        """
        self._policy, self._bound, self._rounded = policy, bound, rounded
        self.last: Parity | None = None
        """Of the newest push."""

    async def deliver(self, model: Any, version: int) -> None:
        """Have the server serve the model's weights as `version`."""
        raise NotImplementedError

    async def push(self, model: Any, version: int) -> float:
        """Serve the model's weights as `version`; the error in nats that is held against the bound.

        Raises:
            HostFault: the server failed, serves another version, or its log-probabilities are off by more.
        """
        await self.deliver(model, version)
        if self._policy.weight_version() != version:
            raise HostFault(f"weight version {version} was pushed, {self._policy.weight_version()} serves")
        self.last = await parity(self._policy, model, context=self._policy.context)
        error = self.last.mean if self._rounded else self.last.worst
        if not error <= self._bound:
            raise HostFault(
                f"after the push of version {version} the server's log-probabilities are {error:.2g} nats off the "
                f"trained model's; the bound is {self._bound:.2g}"
            )
        return error


class VllmSync(Probed):
    """Writes a directory, has the server reload it, and compares log-probabilities."""

    def __init__(
        self,
        policy: LoadsDirectories,
        folder: Path,
        *,
        bound: float,
        mode: Literal["keep", "wait", "abort"] = "keep",
        untie: bool = True,
        rounded: bool = False,
    ) -> None:
        """
        Args:
            folder: where directories of weights are written; the server must see it under the same path.
            bound, rounded: as `Probed`.
            mode: of requests in flight during a push.
            untie: write tied embeddings as two matrices (a server on a CPU needs it).
        """
        super().__init__(policy, bound=bound, rounded=rounded)
        self._server, self._folder = policy, folder
        self._mode: Literal["keep", "wait", "abort"] = mode
        self._untie = untie

    async def deliver(self, model: Any, version: int) -> None:
        """As `Probed`; only the newest directory is kept."""
        target = self._folder / f"weights-{version:06d}"
        await asyncio.to_thread(self._write, model, target)
        await self._load(target, version)
        await asyncio.to_thread(self._drop_others, target)

    async def _load(self, target: Path, version: int) -> None:
        await self._server.load_directory(target, version, mode=self._mode)

    def _write(self, model: Any, target: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_weights(model, target, untie=self._untie)

    def _drop_others(self, kept: Path) -> None:
        for path in self._folder.glob("weights-*"):
            if path != kept:
                shutil.rmtree(path, ignore_errors=True)


class AdapterSync(VllmSync):
    """Writes the LoRA adapter alone, which the server puts beside the weights that it started with, without a merge."""

    async def _load(self, target: Path, version: int) -> None:
        await self._server.load_adapter(target, version, mode=self._mode)

    def _write(self, model: Any, target: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_adapter(model, target)
