"""A learner that several processes share, as the training loop sees it; and what the others do meanwhile.

Rank 0 runs the loop and speaks to the hub. What it asks of the learner it tells the other ranks first, and all of them
do it together. The others do nothing else: they wait for orders, and end when rank 0 does.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from agenthub.errors import HostFault
from agenthub.trainers.checkpoint import Apart
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.door import Door
from agenthub.trainers.hardware import LearnerConfig, device_of
from agenthub.trainers.learner import Learner, Stopped, UpdateStats
from agenthub.trainers.plugins import Credit, Loss
from agenthub.trainers.ranks import ALONE, Ranks
from agenthub.trainers.scoring import Models
from agenthub.trainers.sharded import checkpoint_activations, gather, spread, write_shards
from agenthub.trainers.slim import slim
from agenthub.trainers.types import Batch, Doubles

__all__ = ["Leader", "dismissed", "follow", "learner_of", "shares"]


class Leader:
    """Rank 0 of a shared learner; the methods that a training loop needs, with `Learner`'s contracts.

    Each may also raise HostFault: a rank is gone.
    """

    def __init__(self, learner: Learner, ranks: Ranks, whole: Any) -> None:
        """
        Args:
            whole: the same model, not sharded, for what wants the weights in one piece.
        """
        self.learner, self._ranks, self._whole = learner, ranks, whole
        self._gathered = False

    @property
    def model(self) -> Any:
        """The model with the present weights, gathered where they have changed."""
        if not self._gathered:
            self._all("gather_into")
            gather(self.learner.model, self._whole)
            self._gathered = True
        return self._whole

    @property
    def notes(self) -> list[str]:
        """As `Learner.notes`."""
        return self.learner.notes

    @property
    def learning_rate(self) -> float:
        """As `Learner.learning_rate`."""
        return self.learner.learning_rate

    def schedule(self, number: int, updates: int) -> None:
        """As `Learner.schedule`."""
        self._all("schedule", number, updates)
        self.learner.schedule(number, updates)

    def with_old_logprobs(self, batch: Batch, version: int) -> Batch:
        """As `Learner.with_old_logprobs`."""
        self._all("with_old_logprobs", batch, version)
        return self.learner.with_old_logprobs(batch, version)

    def scored(self, batch: Batch, needs: Collection[str]) -> Batch:
        """As `Learner.scored`."""
        self._all("scored", batch, frozenset(needs))
        return self.learner.scored(batch, needs)

    def fit_critic(self, batch: Batch, credit: Credit) -> Mapping[str, float]:
        """As `Learner.fit_critic`."""
        self._all("fit_critic", batch, credit)
        return self.learner.fit_critic(batch, credit)

    def update(
        self,
        batch: Batch,
        advantage: Doubles,
        *,
        seed: int,
        weights: Doubles | None = None,
        stop: threading.Event | None = None,
    ) -> UpdateStats:
        """As `Learner.update`."""
        self._gathered = False
        self._all("update", batch, advantage, seed=seed, weights=weights)
        return self.learner.update(batch, advantage, seed=seed, weights=weights, stop=stop)

    def state_dict(self) -> dict[str, Any]:
        """The losses' and the critic's states; weights and optimiser are apart, every rank writes its own."""
        return Apart(self.learner.state_dict(apart=True), write=self._write)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Learner.load_state_dict`."""
        self._gathered = False
        self._all("load_state_dict", state)
        self.learner.load_state_dict(state)

    def close(self) -> None:
        """Let the others end. Raises HostFault: they are gone."""
        self._ranks.tell()

    def _write(self, folder: Path) -> None:
        self._all("write_shards", folder)
        write_shards(folder, self.learner.door, self.learner.optimiser)

    def _all(self, name: str, *args: Any, **keywords: Any) -> None:
        self._ranks.tell((name, tuple(_sendable(argument) for argument in args), keywords))


def _sendable(argument: Any) -> Any:
    """A read-only view of a mapping cannot be pickled."""
    return replace(argument, keep_group=dict(argument.keep_group)) if isinstance(argument, Batch) else argument


def follow(learner: Learner, ranks: Ranks) -> None:
    """Do what rank 0 does until it says that it is over.

    Raises:
        HostFault: rank 0 is gone.
    """
    while (order := ranks.tell()) is not None:
        name, args, keywords = order
        if name == "gather_into":
            gather(learner.model, None)
        elif name == "write_shards":
            write_shards(args[0], learner.door, learner.optimiser)
        else:
            try:
                getattr(learner, name)(*args, **keywords)
            except Stopped:
                continue


def learner_of(
    model: Any,
    loss: Loss,
    optim: OptimConfig,
    config: LearnerConfig,
    *,
    temperature: float,
    regularisers: Collection[Loss] = (),
    beside: Callable[[Any], Models] = lambda _: Models(),
    ranks: Ranks = ALONE,
) -> Learner | Leader:
    """The learner of a run: one process with a whole model, or this process's part of a shared one.

    Rank 0 of several, and a process whose weights and computations differ in type, gets a leader.

    Args:
        beside: makes the models beside the trained one, which it is given before it is sharded.

    Raises:
        UserError: a device or a number of processes that is not here.
    """
    config.check(ranks.size)
    device = device_of(config)
    model = model.to(device).eval()
    others = beside(model)
    dtype = getattr(torch, config.precision)
    spreads = shares(config, ranks.size)
    whole = copy.deepcopy(model).to(dtype) if spreads and ranks.rank == 0 else None
    if dtype != torch.float32 and device.type == "cuda":
        slim(model)
    door = Door(model, dtype=dtype, elements=config.logits)
    if config.checkpointing:
        checkpoint_activations(model)
    if spreads:
        spread(door, ranks, offload=config.offload)
    learner = Learner(
        door, loss, optim, temperature=temperature, regularisers=tuple(regularisers), beside=others, ranks=ranks
    )
    return Leader(learner, ranks, whole) if whole is not None else learner


def shares(config: LearnerConfig, size: int) -> bool:
    """Does the model lie in shards, of which there may be one?"""
    return size > 1 or config.precision != "float32" or config.offload


def dismissed(learner: Learner | Leader, failed: bool) -> None:
    """Let the other ranks end; where the run has failed already, in silence if they are gone."""
    if isinstance(learner, Leader):
        try:
            learner.close()
        except HostFault:
            if not failed:
                raise
