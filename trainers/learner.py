"""Learner: one update of a causal language model from a filtered batch with advantages.

Owns the model's training copy, the optimiser and their state. It knows neither the hub nor the policy that serves.
Deterministic: the same batch, seed, weights and number of threads give the same weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agenthub.records import Floats, Ints, floats
from agenthub.trainers.aggregate import total
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.plugins import Loss
from agenthub.trainers.types import Batch, Bools
from agenthub.trainers.view import View, token_scores, views

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
    """A model, its optimiser, and the update."""

    def __init__(self, model: Any, loss: Loss, optim: OptimConfig, *, temperature: float = 1.0) -> None:
        """
        Args:
            model: a causal language model of transformers in float32; it is trained in place, without dropout.
            temperature: that of the rollout's sampling distribution, more than 0.
        """
        self.model, self.temperature = model.eval(), temperature
        self._loss, self._optim = loss, optim
        self._device = next(model.parameters()).device
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self._parameters,
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=self._device.type == "cpu",
        )

    def schedule(self, number: int, updates: int) -> None:
        """Set the learning rate of update `number`, from 1, of `updates`."""
        optim = self._optim
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
        current = bool((batch.versions[batch.in_loss] == version).all())
        if mode == "rollout" or (mode == "auto" and current):
            return batch
        return replace(batch, old_logprobs=self.logprobs(batch, batch.in_loss))

    @torch.no_grad()
    def logprobs(self, batch: Batch, chosen: Bools) -> Floats:
        """f32[T]: log-probabilities of the chosen tokens under the present weights, 0 elsewhere."""
        out = np.zeros(batch.tokens, np.float32)
        for view in self._views(batch, chosen):
            lp, _ = token_scores(self.model, view, temperature=self.temperature)
            out[view.tokens.cpu().numpy()] = lp.cpu().numpy()
        return floats(out)

    def update(
        self,
        batch: Batch,
        advantage: Floats,
        *,
        seed: int,
        weights: Floats | None = None,
        stop: threading.Event | None = None,
    ) -> UpdateStats:
        """Take `epochs` times `minibatches` optimiser steps over the trajectories that have tokens in the loss.

        Args:
            batch: filtered. advantage: f32[T]. weights: f32[T] of a correction; None is 1.
            seed: of the order of the trajectories.

        Raises:
            Stopped: `stop` was set; the weights are between two versions.
        """
        rows = []
        order = np.random.default_rng(seed)
        weights = np.ones_like(advantage) if weights is None else weights
        trained = np.unique(batch.trajectory_of_token[batch.in_loss]).astype(np.int32)
        for _ in range(self._optim.epochs if trained.size else 0):
            shuffled = order.permutation(trained)
            for part in np.array_split(shuffled, min(self._optim.minibatches, trained.size)):
                if stop is not None and stop.is_set():
                    raise Stopped
                rows.append(self._step(batch, np.sort(part), advantage, weights))
        return _summary(rows, int(batch.in_loss.sum()))

    def gradient(self, batch: Batch, advantage: Floats, weights: Floats | None = None) -> Gradient:
        """Fill the parameters' gradient for the whole batch and say what came out; no step is taken."""
        # Gradients of 0 and not None: a step without any advantage still moves by the optimiser's momentum.
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        A = torch.as_tensor(np.array(advantage), device=self._device)
        w = torch.ones_like(A) if weights is None else torch.as_tensor(np.array(weights), device=self._device)
        chosen = batch.in_loss & (advantage != 0.0) if self._loss.inert_at_zero else batch.in_loss
        doors = self._views(batch, chosen)
        if sum(view.ids.numel() for view in doors) <= self._optim.graph_tokens:
            lp, entropy = self._forward(batch, doors)
            loss, metrics = self._loss_of(lp, batch, A, w)
            if doors:
                loss.backward()  # type: ignore[no-untyped-call]
        else:
            loss, metrics, entropy = self._in_two_passes(batch, doors, A, w)
        norm = torch.nn.utils.get_total_norm(
            [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        )
        count = max(int(chosen.sum()), 1)
        return Gradient(
            loss=float(loss.detach()),
            norm=float(norm),
            entropy=float(entropy) / count,
            metrics={name: float(value) for name, value in metrics.items()},
        )

    def _step(self, batch: Batch, part: Ints, advantage: Floats, weights: Floats) -> Gradient:
        tokens = _token_rows(batch, part)
        row = self.gradient(batch.select(part), advantage[tokens], weights[tokens])
        if not math.isfinite(row.norm):
            return replace(row, skipped=True)
        if self._optim.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._optim.grad_clip)
        self.optimiser.step()
        return row

    def _forward(self, batch: Batch, doors: Sequence[View]) -> tuple[Tensor, Tensor]:
        """(log-probabilities f32[T], sum of entropies) over several small forward passes: these fit the cache."""
        scores = [token_scores(self.model, view, temperature=self.temperature) for view in doors]
        if not scores:
            return torch.zeros(batch.tokens, device=self._device), torch.zeros((), device=self._device)
        chosen = torch.cat([lp for lp, _ in scores])
        lp = chosen.new_zeros(batch.tokens).index_copy(0, torch.cat([view.tokens for view in doors]), chosen)
        return lp, torch.stack([entropy.sum() for _, entropy in scores]).sum()

    def _in_two_passes(
        self, batch: Batch, doors: Sequence[View], A: Tensor, w: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor], Tensor]:
        """Too many tokens for one graph: dL/dlp of the whole batch first, then one graph at a time.

        Exact for every loss and aggregation, at the price of a second forward pass.
        """
        with torch.no_grad():
            lp, entropy = self._forward(batch, doors)
        lp.requires_grad_(True)
        loss, metrics = self._loss_of(lp, batch, A, w)
        (slope,) = torch.autograd.grad(loss, lp)
        for view in doors:
            part, _ = token_scores(self.model, view, temperature=self.temperature)
            part.backward(slope.index_select(0, view.tokens))  # type: ignore[no-untyped-call]
        return loss, metrics, entropy

    def _loss_of(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        terms = self._loss.terms(lp, batch, A, w, {})
        sample = torch.as_tensor(batch.sample_of_token, dtype=torch.int64, device=self._device)
        metrics = {name: value for term in terms for name, value in term.metrics.items()}
        return total(terms, sample), metrics

    def _views(self, batch: Batch, chosen: Bools) -> list[View]:
        return list(views(batch, chosen, max_tokens=self._optim.view_tokens, device=self._device))

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser, by reference."""
        return {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])


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
