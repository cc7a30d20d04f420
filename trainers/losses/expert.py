"""Losses that also learn from tokens the policy did not sample by itself: experts', refined ones, its own good ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from agenthub.trainers.aggregate import Term
from agenthub.trainers.losses.base import Tokens, mask_of
from agenthub.trainers.losses.clipped import PPO
from agenthub.trainers.plugins import LossState
from agenthub.trainers.types import EXPERT, REFINED, Batch

__all__ = ["AHPO", "CHORD", "RLSFT", "SFT", "CritiqueGRPO", "THORLoss", "expert_tokens"]


def expert_tokens(lp: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """(lp on the experts' tokens in the loss and 0 elsewhere, their mask bool[T])"""
    mask = mask_of(lp, batch.in_loss & batch.tokens_by(EXPERT))
    return torch.where(mask, lp, torch.zeros_like(lp)), mask


def _share(mask: Tensor) -> dict[str, Tensor]:
    return {"expert_tokens": mask.sum().to(torch.float32)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SFT(PPO):
    """-lp on the experts' tokens; nothing else trains.

    Source: maximum likelihood on recorded trajectories.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"experts"})
    inert_at_zero: ClassVar[bool] = False
    reinforce_at_one: ClassVar[bool] = False

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """One term on the experts' tokens."""
        lp, mask = expert_tokens(lp, batch)
        return [self.term(-lp, mask, _share(mask))]


@dataclass(frozen=True, slots=True, kw_only=True)
class CHORD(PPO):
    """(1 - mu) PPO + mu SFT on the experts' tokens, each weighted by sg(p (1 - p)).

    mu rises linearly to `peak` over `warmup` updates, falls along a cosine to `valley` over `decay`, and stays.
    Source: CHORD, arXiv 2508.11408; Trinity-RFT, chord_policy_loss.py.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"experts"})
    inert_at_zero: ClassVar[bool] = False
    reinforce_at_one: ClassVar[bool] = False
    peak: float = 0.1
    valley: float = 0.1
    warmup: int = 0
    decay: int = 0

    def _check(self) -> None:
        PPO._check(self)
        if not (0.0 <= self.valley <= 1.0 and 0.0 <= self.peak <= 1.0) or min(self.warmup, self.decay) < 0:
            raise ValueError("peak and valley must be in 0 to 1, warmup and decay not negative")

    def mu(self, step: int) -> float:
        """The experts' share at an update, counted from 0."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        if step < self.warmup + self.decay:
            fall = 0.5 * (1.0 + math.cos(math.pi * (step - self.warmup) / self.decay))
            return self.valley + (self.peak - self.valley) * fall
        return self.valley

    @staticmethod
    def phi(lp: Tensor) -> Tensor:
        """p (1 - p), detached: what the policy knows well or finds absurd is silent."""
        p = lp.detach().exp()
        return p * (1.0 - p)

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """Two terms, which share the aggregation."""
        mu = self.mu(state.step)
        tokens = Tokens.of(lp, batch, A, state)
        loss, metrics = self.token_loss(tokens)
        expert, mask = expert_tokens(lp, batch)
        sft = torch.where(mask, -self.phi(expert) * expert, torch.zeros_like(expert))
        return [
            self.term(w.detach() * loss, tokens.mask, metrics, 1.0 - mu),
            self.term(sft, mask, _share(mask) | {"mu": lp.new_tensor(mu)}, mu),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class AHPO(PPO):
    """PPO + the experts' negative log-likelihood in those groups of which fewer than `right` members are right.

    Source: AHPO in MM-HELIX, arXiv 2510.08540; no code. `right` is assumed.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"experts"})
    inert_at_zero: ClassVar[bool] = False
    reinforce_at_one: ClassVar[bool] = False
    right: int = 2

    def gate(self, solved: int) -> bool:
        """The expert joins in a group with so many right members."""
        return solved < self.right

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """Two terms, which share the aggregation."""
        tokens = Tokens.of(lp, batch, A, state)
        loss, metrics = self.token_loss(tokens)
        lp, mask = expert_tokens(lp, batch)
        open_ = [self.gate(int(solved)) for solved in batch.peers_solved]
        mask = mask & torch.tensor(open_, device=lp.device)[torch.as_tensor(batch.trajectory_of_token).long()]
        return [self.term(w.detach() * loss, tokens.mask, metrics), self.term(-lp, mask, _share(mask))]


@dataclass(frozen=True, slots=True, kw_only=True)
class RLSFT(PPO):
    """PPO for `rl` updates, then the likelihood of the experts for `sft` updates, and again.

    With experts that the run itself has solved, it takes turns between exploring and keeping what was found.
    Source: StepFun-Prover, arXiv 2507.20199 (reinforcement, fine-tuning on its own successes, and back).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"experts"})
    inert_at_zero: ClassVar[bool] = False
    reinforce_at_one: ClassVar[bool] = False
    rl: int = 10
    sft: int = 5

    def _check(self) -> None:
        PPO._check(self)
        if self.rl < 0 or self.sft < 1:
            raise ValueError(f"rl is {self.rl}, sft is {self.sft}; expected 0 or more, and 1 or more")

    def imitates(self, step: int) -> bool:
        """Update `step`, from 0, learns from the experts alone."""
        return step % (self.rl + self.sft) >= self.rl

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """Two terms, of which one is off."""
        imitates = self.imitates(state.step)
        tokens = Tokens.of(lp, batch, A, state)
        loss, metrics = self.token_loss(tokens)
        expert, mask = expert_tokens(lp, batch)
        phase = {"imitates": lp.new_tensor(float(imitates))}
        return [
            self.term(w.detach() * loss, tokens.mask, metrics, float(not imitates)),
            self.term(-expert, mask, _share(mask) | phase, float(imitates)),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CritiqueGRPO(PPO):
    """PPO; on tokens of refined answers -A p / (p + gamma) without any bound.

    Source: Critique-GRPO, arXiv 2506.03106; critique_core_algos.py.
    """

    inert_at_zero: ClassVar[bool] = True
    reinforce_at_one: ClassVar[bool] = False
    gamma: float = 0.1

    def _check(self) -> None:
        PPO._check(self)
        if self.gamma <= 0.0:
            raise ValueError(f"gamma is {self.gamma}; expected more than 0")

    def shaped(self, p: Tensor) -> Tensor:
        """p / (p + gamma)"""
        return p / (p + self.gamma)

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate or the shaped one, and how many tokens are refined."""
        loss, metrics = PPO.token_loss(self, tokens)
        refined = mask_of(tokens.lp, tokens.batch.tokens_by(REFINED)) & tokens.mask
        loss = torch.where(refined, -tokens.A * self.shaped(tokens.lp.exp()), loss)
        return loss, metrics | {"refined_tokens": refined.sum().to(loss.dtype)}


@dataclass(frozen=True, slots=True, kw_only=True)
class THORLoss(PPO):
    """PPO + alpha times the mean of -lp over tokens with A > 1e-7.

    Source: THOR, arXiv 2509.13761; JingMog/THOR, dp_actor.py.
    """

    reinforce_at_one: ClassVar[bool] = False
    clip_high: float = 0.28
    alpha: float = 0.01

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """Two terms, which share the aggregation."""
        tokens = Tokens.of(lp, batch, A, state)
        loss, metrics = self.token_loss(tokens)
        good = tokens.mask & (tokens.A > 1e-7)
        own = torch.where(good, -tokens.lp, torch.zeros_like(lp))
        return [
            self.term(w.detach() * loss, tokens.mask, metrics),
            self.term(own, good, {"imitated_tokens": good.sum().to(lp.dtype)}, self.alpha),
        ]
