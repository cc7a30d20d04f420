"""Weight sync to a vLLM server: new weights by a directory that it reloads, and the proof that they serve."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from agenthub.errors import HostFault
from agenthub.policy import Request
from agenthub.records import Generation
from agenthub.trainers.sync.directory import write_weights
from agenthub.trainers.sync.parity import Parity, parity

__all__ = ["LoadsDirectories", "VllmSync"]


class LoadsDirectories(Protocol):
    """A policy whose server takes weights from a directory."""

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """As `policy.Policy`."""

    async def load_directory(
        self, folder: Path, version: int, *, mode: Literal["keep", "wait", "abort"] = "keep"
    ) -> None:
        """Serve these weights from now on."""

    def weight_version(self) -> int:
        """Version of the weights that serve now."""


class VllmSync:
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
            bound: largest error in nats after a push: the worst token's, or the mean where the server rounds.
            mode: of requests in flight during a push.
            untie: write tied embeddings as two matrices (a server on a CPU needs it).
            rounded: the server computes in bf16.
        """
        self._policy, self._folder, self._bound = policy, folder, bound
        self._mode: Literal["keep", "wait", "abort"] = mode
        self._untie, self._rounded = untie, rounded
        self.last: Parity | None = None
        """Of the newest push."""

    async def push(self, model: Any, version: int) -> float:
        """Serve the model's weights as `version`; the error in nats that is held against the bound.

        Raises:
            HostFault: the server failed, serves another version, or its log-probabilities are off by more.
        """
        target = self._folder / f"weights-{version:06d}"
        await asyncio.to_thread(self._write, model, target)
        await self._policy.load_directory(target, version, mode=self._mode)
        if self._policy.weight_version() != version:
            raise HostFault(f"weight version {version} was pushed, {self._policy.weight_version()} serves")
        await asyncio.to_thread(self._drop_others, target)
        self.last = await parity(self._policy, model, context=self._policy.context)
        error = self.last.mean if self._rounded else self.last.worst
        if not error <= self._bound:
            raise HostFault(
                f"after the push of version {version} the server's log-probabilities are {error:.2g} nats off the "
                f"trained model's; the bound is {self._bound:.2g}"
            )
        return error

    def _write(self, model: Any, target: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_weights(model, target, untie=self._untie)

    def _drop_others(self, kept: Path) -> None:
        for path in self._folder.glob("weights-*"):
            if path != kept:
                shutil.rmtree(path, ignore_errors=True)
