"""Learner: one update of a causal language model from a filtered batch with advantages.

Owns the model's training copy, the optimiser and their state. It knows neither the hub nor the policy that serves.
Deterministic: the same batch, seed, weights and number of threads give the same weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from agenthub.records import Floats, Ints, floats
from agenthub.trainers.aggregate import Axes, total
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.door import Door
from agenthub.trainers.logits import Scores
from agenthub.trainers.plugins import Credit, Loss, LossState, MeasuresReturns, needs_of
from agenthub.trainers.ranks import ALONE, Ranks
from agenthub.trainers.scoring import Models, Reader, scored
from agenthub.trainers.sharded import read_shards, read_whole
from agenthub.trainers.types import EXPERT, Batch, Bools, Doubles
from agenthub.trainers.view import View

__all__ = ["Gradient", "Learner", "Stopped", "UpdateStats"]


class Stopped(Exception):
    """The update was asked to stop between two minibatches; the weights are of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStats:
    """What one update did."""

    loss: float
    """Mean over minibatches."""
    grad_norm: float
    """Mean over minibatches, before clipping; 0.0 where no token was in the loss."""
    entropy: float
    """Mean over the tokens that were computed (a loss may need none of advantage 0), nats."""
    steps: int
    """Optimiser steps taken."""
    skipped: int
    """Minibatches whose gradient was not finite, so that no step was taken."""
    tokens: int
    """Tokens in the loss."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The loss's own, mean over minibatches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """What one gradient came to."""

    loss: float
    norm: float
    """Over all parameters, before clipping."""
    entropy: float
    """Mean over the tokens that were computed, nats."""
    metrics: Mapping[str, float]
    """The loss's own."""
    skipped: bool = False
    """It was not finite, and no step was taken."""


class Learner:
    """A model, its optimiser, and the update.

    Where several processes share the model, each calls the same methods with the same arguments and computes its part
    of the tokens; log-probabilities are summed up over the ranks, so that every loss sees the whole batch.
    """

    def __init__(
        self,
        model: Any,
        loss: Loss,
        optim: OptimConfig,
        *,
        temperature: float = 1.0,
        regularisers: Sequence[Loss] = (),
        beside: Models | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """
        Args:
            model: a causal language model of transformers in float32, or the door of one that is sharded; it is
                trained in place, without dropout.
            temperature: that of the rollout's sampling distribution, more than 0.
            regularisers: losses that are added to the first.
            beside: the models that plug-ins need beside the trained one.
            ranks: the processes that share the model.
        """
        self.door = model if isinstance(model, Door) else Door(model.eval())
        self.model, self.temperature, self._ranks = self.door.model, temperature, ranks
        self._losses, self._optim = (loss, *regularisers), optim
        self._inert = all(one.inert_at_zero for one in self._losses)
        self._states, self._step_number = [one.start() for one in self._losses], 0
        self.beside = beside or Models()
        self._device = self.door.device
        self._reader = Reader(ranks=ranks, temperature=temperature, view_tokens=optim.view_tokens)
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self._parameters,
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=self._device.type in ("cpu", "cuda"),
        )

    def schedule(self, number: int, updates: int) -> None:
        """Set the learning rate of update `number`, from 1, of `updates`."""
        optim, self._step_number = self._optim, number - 1
        rate = min(1.0, number / (optim.warmup + 1)) if optim.warmup else 1.0
        share = (number - 1) / max(updates, 1)
        if optim.schedule == "linear":
            rate *= 1.0 - share
        elif optim.schedule == "cosine":
            rate *= 0.5 * (1.0 + math.cos(math.pi * share))
        for group in self.optimiser.param_groups:
            group["lr"] = optim.lr * rate

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def with_old_logprobs(self, batch: Batch, version: int) -> Batch:
        """The batch with `old_logprobs` under the present weights.

        The rollout's own stand where they were sampled by these weights (`old_logprobs: auto`), or always (`rollout`).
        """
        mode = self._optim.old_logprobs
        sampled = batch.in_loss & ~batch.tokens_by(EXPERT)
        current = bool((batch.versions[sampled] == version).all())
        if mode == "rollout" or (mode == "auto" and current):
            return batch
        return replace(batch, old_logprobs=self.logprobs(batch, batch.in_loss))

    def logprobs(self, batch: Batch, chosen: Bools) -> Floats:
        """f32[T]: log-probabilities of the chosen tokens under the present weights, 0 elsewhere."""
        return floats(self._reader.scores(self.door, batch, chosen)["lp"])

    def scored(self, batch: Batch, needs: Collection[str]) -> Batch:
        """The batch with what plug-ins need beyond log-probabilities, under the present weights."""
        return scored(batch, self.door, self.beside, needs_of(*self._losses) | set(needs), self._reader)

    def fit_critic(self, batch: Batch, credit: Credit) -> Mapping[str, float]:
        """Let the critic learn the returns that a credit estimator measures against it; metrics, none without both."""
        return self.beside.fit(batch, credit.returns(batch)) if isinstance(credit, MeasuresReturns) else {}

    def update(
        self,
        batch: Batch,
        advantage: Doubles,
        *,
        seed: int,
        weights: Doubles | None = None,
        stop: threading.Event | None = None,
    ) -> UpdateStats:
        """Take `epochs` times `minibatches` optimiser steps over the trajectories that have tokens in the loss.

        Args:
            batch: filtered. advantage: f64[T]. weights: f64[T] of a correction; None is 1.
            seed: of the order of the trajectories.

        Raises:
            Stopped: `stop` was set; the weights are between two versions.
        """
        rows = []
        order = np.random.default_rng(seed)
        A = advantage.astype(np.float32)
        w = np.ones_like(A) if weights is None else weights.astype(np.float32)
        trained = np.unique(batch.trajectory_of_token[batch.in_loss]).astype(np.int32)
        for _ in range(self._optim.epochs if trained.size else 0):
            shuffled = order.permutation(trained)
            for part in np.array_split(shuffled, min(self._optim.minibatches, trained.size)):
                if self._ranks.most(int(stop is not None and stop.is_set()), self._device):
                    raise Stopped
                rows.append(self._step(batch, np.sort(part), A, w))
        return _summary(rows, int(batch.in_loss.sum()))

    def gradient(self, batch: Batch, advantage: Floats | Doubles, weights: Floats | None = None) -> Gradient:
        """Fill the parameters' gradient for the whole batch and say what came out; no step is taken."""
        # Shards take the sums of the first view as they come: no memory for them while activations are kept.
        for parameter in self._parameters:
            parameter.grad = None if isinstance(parameter, DTensor) else torch.zeros_like(parameter)
        A = torch.as_tensor(np.array(advantage, np.float32), device=self._device)
        w = torch.ones_like(A) if weights is None else torch.as_tensor(np.array(weights), device=self._device)
        chosen = batch.in_loss & (advantage != 0.0) if self._inert else batch.in_loss
        doors = self._reader.views(self.door, batch, chosen)
        computed = self._ranks.most(sum(view.ids.numel() for view in doors), self._device)
        kept = computed <= self._optim.graph_tokens
        with torch.set_grad_enabled(kept):
            parts = [self.door.scores(view, temperature=self.temperature) for view in doors]
        whole = self._whole(batch, doors, parts)
        loss, metrics, slopes = self._slopes(whole, batch, A, w)
        self._backward(doors, parts if kept else None, slopes)
        # Gradients of 0 and not None: a step without any advantage still moves by the optimiser's momentum.
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return Gradient(
            loss=float(loss.detach()),
            norm=self._norm(),
            entropy=float(whole.entropy.sum()) / max(int(chosen.sum()), 1),
            metrics={name: float(value) for name, value in metrics.items()},
        )

    def _step(self, batch: Batch, part: Ints, advantage: Floats, weights: Floats) -> Gradient:
        tokens = _token_rows(batch, part)
        row = self.gradient(batch.select(part), advantage[tokens], weights[tokens])
        if not math.isfinite(row.norm):
            return replace(row, skipped=True)
        if self._optim.grad_clip is not None:
            # As torch clips, with the norm that is known already.
            scale = min(self._optim.grad_clip / (row.norm + 1e-6), 1.0)
            torch._foreach_mul_(self._gradients(), scale)
        self.optimiser.step()
        self._states = [
            one.advance(state, row.metrics) if state else state
            for one, state in zip(self._losses, self._states, strict=True)
        ]
        return row

    def _whole(self, batch: Batch, doors: Sequence[View], parts: Sequence[Scores]) -> Scores:
        """What all ranks found, each f32[T], detached; 0 off the chosen tokens."""
        rows = torch.zeros((3, batch.tokens), device=self._device)
        for view, part in zip(doors, parts, strict=True):
            rows[:, view.tokens] = torch.stack([part.lp, part.logsumexp, part.entropy]).detach().to(rows.dtype)
        lp, logsumexp, entropy = self._ranks.total(rows).unbind()
        return Scores(lp=lp.clone(), logsumexp=logsumexp.clone(), entropy=entropy, sum_pi_sq=entropy)

    def _slopes(
        self, whole: Scores, batch: Batch, A: Tensor, w: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor], Sequence[Tensor]]:
        """(loss, metrics, dL/dlp and dL/dlogsumexp f32[T] each); exact for every loss and aggregation."""
        ends = [whole.lp.requires_grad_(True), whole.logsumexp.requires_grad_(True)]
        terms = [
            term
            for one, values in zip(self._losses, self._states, strict=True)
            for term in one.terms(
                whole.lp, batch, A, w, LossState(step=self._step_number, values=values, logsumexp=whole.logsumexp)
            )
        ]
        metrics = {name: value for term in terms for name, value in term.metrics.items()}
        loss = total(terms, Axes.of(batch, self._device))
        return loss, metrics, torch.autograd.grad(loss, ends, allow_unused=True, materialize_grads=True)

    def _backward(self, doors: Sequence[View], parts: Sequence[Scores] | None, slopes: Sequence[Tensor]) -> None:
        """Carry the slopes on into the weights, view by view; without kept graphs a view is computed again."""
        for number, view in enumerate(doors):
            part = self.door.scores(view, temperature=self.temperature) if parts is None else parts[number]
            # Sharded gradients are divided by the number of ranks.
            mine = [slope.index_select(0, view.tokens).to(part.lp.dtype) * self._ranks.size for slope in slopes]
            torch.autograd.backward([part.lp, part.logsumexp], mine)

    def _norm(self) -> float:
        norm = torch.nn.utils.get_total_norm(self._gradients())
        if self._ranks.size > 1:
            norm = self._ranks.total(norm.square()).sqrt()
        return float(norm)

    def _gradients(self) -> list[Tensor]:
        """This rank's part of each. Tensors of shards would be told apart one by one on every call."""
        return [_local(p.grad) for p in self._parameters if p.grad is not None]

    @property
    def notes(self) -> list[str]:
        """What a person should know of how the model is computed."""
        why = self.door.why_padded
        return [] if why is None else [f"updates pad their rows: {why}"]

    def state_dict(self, *, apart: bool = False) -> dict[str, Any]:
        """Weights, optimiser, the losses' and the critic's states, by reference.

        Args:
            apart: leave out weights and optimiser, which are written as shards.
        """
        state: dict[str, Any] = {"losses": self._states}
        if not apart:
            state |= {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        critic = self.beside.critic
        return state if critic is None else state | {"critic": critic.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, here or to a learner of another number of ranks."""
        if "shards" in state:
            read_shards(Path(state["shards"]), self.door, self.optimiser)
        elif any(isinstance(parameter, DTensor) for parameter in self._parameters):
            read_whole(state["model"], state["optimiser"], self.door, self.optimiser)
        else:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        self._states = [dict(values) for values in state["losses"]]
        if self.beside.critic is not None:
            self.beside.critic.load_state_dict(state["critic"])


@torch.no_grad()
def _local(tensor: Tensor) -> Tensor:
    local: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local


def _token_rows(batch: Batch, part: Ints) -> Any:
    """Places of the tokens of these trajectories, in the order in which `select` keeps them."""
    samples = np.concatenate([np.flatnonzero(batch.trajectory_of_sample == n) for n in part])
    edges = np.searchsorted(batch.sample_of_token, [samples, samples + 1])
    return np.concatenate([np.arange(a, b) for a, b in edges.T])


def _summary(rows: Sequence[Gradient], tokens: int) -> UpdateStats:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    names = sorted({name for row in rows for name in row.metrics})
    return UpdateStats(
        loss=mean([row.loss for row in rows]),
        grad_norm=mean([row.norm for row in rows]),
        entropy=mean([row.entropy for row in rows]),
        steps=sum(not row.skipped for row in rows),
        skipped=sum(row.skipped for row in rows),
        tokens=tokens,
        metrics={name: mean([row.metrics[name] for row in rows]) for name in names},
    )
