"""Learner: one update of a causal language model from a filtered batch with advantages.

Owns the model's training copy, the optimiser and their state. It knows neither the hub nor the policy that serves.
Deterministic: the same batch, seed, weights and number of threads give the same weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agenthub.records import Floats, Ints, floats
from agenthub.trainers.aggregate import Axes, total
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.plugins import Credit, Loss, LossState, MeasuresReturns, needs_of
from agenthub.trainers.scoring import Models, scored
from agenthub.trainers.types import Batch, Bools, Doubles
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

    def __init__(
        self,
        model: Any,
        loss: Loss,
        optim: OptimConfig,
        *,
        temperature: float = 1.0,
        regularisers: Sequence[Loss] = (),
        beside: Models | None = None,
    ) -> None:
        """
        Args:
            model: a causal language model of transformers in float32; it is trained in place, without dropout.
            temperature: that of the rollout's sampling distribution, more than 0.
            regularisers: losses that are added to the first.
            beside: the models that plug-ins need beside the trained one.
        """
        self.model, self.temperature = model.eval(), temperature
        self._losses, self._optim = (loss, *regularisers), optim
        self._inert = all(one.inert_at_zero for one in self._losses)
        self._logsumexp = "first_state_logsumexp" in needs_of(*self._losses)
        self._states, self._step_number = [one.start() for one in self._losses], 0
        self.beside = beside or Models()
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
        current = bool((batch.versions[batch.in_loss] == version).all())
        if mode == "rollout" or (mode == "auto" and current):
            return batch
        return replace(batch, old_logprobs=self.logprobs(batch, batch.in_loss))

    @torch.no_grad()
    def logprobs(self, batch: Batch, chosen: Bools) -> Floats:
        """f32[T]: log-probabilities of the chosen tokens under the present weights, 0 elsewhere."""
        out = np.zeros(batch.tokens, np.float32)
        for view in self._views(batch, chosen):
            lp = token_scores(self.model, view, temperature=self.temperature).lp
            out[view.tokens.cpu().numpy()] = lp.cpu().numpy()
        return floats(out)

    def scored(self, batch: Batch, needs: Collection[str]) -> Batch:
        """The batch with what plug-ins need beyond log-probabilities, under the present weights."""
        size = self._optim.view_tokens
        needs = needs_of(*self._losses) | set(needs)
        return scored(batch, self.model, self.beside, needs, temperature=self.temperature, view_tokens=size)

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
                if stop is not None and stop.is_set():
                    raise Stopped
                rows.append(self._step(batch, np.sort(part), A, w))
        return _summary(rows, int(batch.in_loss.sum()))

    def gradient(self, batch: Batch, advantage: Floats | Doubles, weights: Floats | None = None) -> Gradient:
        """Fill the parameters' gradient for the whole batch and say what came out; no step is taken."""
        # Gradients of 0 and not None: a step without any advantage still moves by the optimiser's momentum.
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        A = torch.as_tensor(np.array(advantage, np.float32), device=self._device)
        w = torch.ones_like(A) if weights is None else torch.as_tensor(np.array(weights), device=self._device)
        chosen = batch.in_loss & (advantage != 0.0) if self._inert else batch.in_loss
        doors = self._views(batch, chosen)
        if sum(view.ids.numel() for view in doors) <= self._optim.graph_tokens:
            lp, entropy, logsumexp = self._forward(batch, doors)
            loss, metrics = self._loss_of(lp, logsumexp, batch, A, w)
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
        self._states = [
            one.advance(state, row.metrics) if state else state
            for one, state in zip(self._losses, self._states, strict=True)
        ]
        return row

    def _forward(self, batch: Batch, doors: Sequence[View]) -> tuple[Tensor, Tensor, Tensor | None]:
        """(log-probabilities f32[T], sum of entropies, logsumexp f32[T] where a loss needs it).

        Over several small forward passes: these fit the cache.
        """
        scores = [
            token_scores(self.model, view, temperature=self.temperature, logsumexp=self._logsumexp) for view in doors
        ]
        if not scores:
            none = torch.zeros(batch.tokens, device=self._device)
            return none, torch.zeros((), device=self._device), none if self._logsumexp else None
        places = torch.cat([view.tokens for view in doors])
        chosen = torch.cat([one.lp for one in scores])
        lp = chosen.new_zeros(batch.tokens).index_copy(0, places, chosen)
        entropy = torch.stack([one.entropy.sum() for one in scores]).sum()
        sums = [one.logsumexp for one in scores if one.logsumexp is not None]
        return lp, entropy, torch.zeros_like(lp).index_copy(0, places, torch.cat(sums)) if sums else None

    def _in_two_passes(
        self, batch: Batch, doors: Sequence[View], A: Tensor, w: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor], Tensor]:
        """Too many tokens for one graph: dL/dlp of the whole batch first, then one graph at a time.

        Exact for every loss and aggregation, at the price of a second forward pass.
        """
        with torch.no_grad():
            lp, entropy, logsumexp = self._forward(batch, doors)
        ends = [lp] if logsumexp is None else [lp, logsumexp]
        for end in ends:
            end.requires_grad_(True)
        loss, metrics = self._loss_of(lp, logsumexp, batch, A, w)
        slopes = torch.autograd.grad(loss, ends)
        for view in doors:
            part = token_scores(self.model, view, temperature=self.temperature, logsumexp=self._logsumexp)
            outs = [part.lp] if part.logsumexp is None else [part.lp, part.logsumexp]
            torch.autograd.backward(outs, [slope.index_select(0, view.tokens) for slope in slopes])
        return loss, metrics, entropy

    def _loss_of(
        self, lp: Tensor, logsumexp: Tensor | None, batch: Batch, A: Tensor, w: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        terms = [
            term
            for one, values in zip(self._losses, self._states, strict=True)
            for term in one.terms(
                lp, batch, A, w, LossState(step=self._step_number, values=values, logsumexp=logsumexp)
            )
        ]
        metrics = {name: value for term in terms for name, value in term.metrics.items()}
        return total(terms, Axes.of(batch, self._device)), metrics

    def _views(self, batch: Batch, chosen: Bools) -> list[View]:
        return list(views(batch, chosen, max_tokens=self._optim.view_tokens, device=self._device))

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, the losses' and the critic's states, by reference."""
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "losses": self._states}
        critic = self.beside.critic
        return state if critic is None else state | {"critic": critic.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._states = [dict(values) for values in state["losses"]]
        if self.beside.critic is not None:
            self.beside.critic.load_state_dict(state["critic"])


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
