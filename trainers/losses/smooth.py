"""Losses without a hard bound on the ratio: gates, penalties, weights, implicit policies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from agenthub.trainers.losses.base import PolicyLoss, Tokens, log_ratio, tensor_like

__all__ = ["NFT", "R2VPO", "SAPO", "MiniRL", "OPMDLoss", "Reinforce"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce(PolicyLoss):
    """-A lp.

    Source: REINFORCE (Williams 1992); with the credit `asymre`, AsymRE, arXiv 2506.20520.
    """

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted log-probability."""
        return -tokens.A * tokens.lp, {}


@dataclass(frozen=True, slots=True, kw_only=True)
class OPMDLoss(PolicyLoss):
    """-A lp / (1 + tau).

    Source: OPMD as in Trinity-RFT; arXiv 2509.24203.
    """

    reinforce_at_one: ClassVar[bool] = False
    tau: float = 1.0

    def _check(self) -> None:
        if self.tau < 0.0:
            raise ValueError(f"tau is {self.tau}; expected 0 or more")

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted log-probability."""
        return -tokens.A * tokens.lp / (1.0 + self.tau), {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SAPO(PolicyLoss):
    """-A (4 / tau) sigmoid(tau (r - 1)), tau = tau_pos where A > 0 and tau_neg elsewhere.

    Source: SAPO, arXiv 2511.20347; verl `compute_policy_loss_sapo`. At r = 1 the gradient is REINFORCE's.
    """

    tau_pos: float = 1.0
    tau_neg: float = 1.05
    aggregation: str = "seq-mean-token-mean"

    def _check(self) -> None:
        if min(self.tau_pos, self.tau_neg) <= 0.0:
            raise ValueError(f"tau_pos {self.tau_pos} and tau_neg {self.tau_neg} must be more than 0")

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The gated advantage, and the mean weight that the gate gives a gradient."""
        ratio = tokens.ratio
        tau = torch.where(tokens.A > 0, self.tau_pos, self.tau_neg).to(ratio.dtype)
        gate = torch.sigmoid(tau * (ratio - 1.0))
        return -tokens.A * 4.0 / tau * gate, {"gate_weight": tokens.mean(4.0 * gate * (1.0 - gate) * ratio)}


@dataclass(frozen=True, slots=True, kw_only=True)
class R2VPO(PolicyLoss):
    """-(r A - lambda (r - 1)^2); after each step lambda <- max(0, lambda + eta (mean (r - 1)^2 - delta)).

    Source: R2VPO, arXiv 2601.03320; no official code. `lam`, `delta` and `eta` are assumed.
    """

    inert_at_zero: ClassVar[bool] = False
    lam: float = 0.04
    """lambda before the first step."""
    delta: float = 0.05
    eta: float = 0.1

    def _check(self) -> None:
        if min(self.lam, self.delta, self.eta) < 0.0:
            raise ValueError(f"lam {self.lam}, delta {self.delta} and eta {self.eta} must not be negative")

    def start(self) -> dict[str, float]:
        """lambda"""
        return {"lam": self.lam}

    def advance(self, state: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
        """Dual ascent towards a mean squared deviation of `delta`."""
        return {"lam": max(0.0, state["lam"] + self.eta * (metrics["ratio_variance"] - self.delta))}

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalised surrogate; lambda and the mean of (r - 1)^2."""
        ratio, lam = tokens.ratio, tokens.state.values.get("lam", self.lam)
        off = (ratio - 1.0) ** 2
        metrics = {"ratio_variance": tokens.mean(off), "lam": ratio.new_tensor(lam)}
        return -(ratio * tokens.A - lam * off), metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniRL(PolicyLoss):
    """-M sg(min(pi / mu, tis_cap)) A lp, mu the engine's own probability of its token.

    M = 0 where A > 0 and pi / old > 1 + eps_high, or A < 0 and pi / old < 1 - eps_low. Goes with mean-centred
    advantages and no length normalisation.
    Source: Stabilizing RL with LLMs, arXiv 2512.01374.
    """

    corrects: ClassVar[bool] = True
    reinforce_at_one: ClassVar[bool] = True
    eps_high: float = 0.27
    eps_low: float = 0.2
    tis_cap: float = 5.0
    aggregation: str = "seq-mean-token-sum"

    def _check(self) -> None:
        if self.tis_cap <= 0.0 or self.eps_high < 0.0 or not 0.0 <= self.eps_low < 1.0:
            raise ValueError(f"eps_high {self.eps_high}, eps_low {self.eps_low} or tis_cap {self.tis_cap} is off")

    def mask(self, ratio: Tensor, A: Tensor) -> Tensor:
        """M, bool[T]; ratio is pi / old."""
        return ~(((A > 0) & (ratio > 1.0 + self.eps_high)) | ((A < 0) & (ratio < 1.0 - self.eps_low)))

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted log-probability, and the share of tokens that M takes out."""
        inside = self.mask(tokens.ratio.detach(), tokens.A).to(tokens.lp.dtype)
        rollout = torch.where(tokens.mask, tensor_like(tokens.lp, tokens.batch.logprobs), tokens.old)
        weight = log_ratio(tokens.lp, rollout).detach().exp().clamp(max=self.tis_cap)
        return -inside * weight * tokens.A * tokens.lp, {"clip_fraction": tokens.mean(1.0 - inside)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NFT(PolicyLoss):
    """A > 0: -log r. A < 0: -neg_weight log((1 - q r) / (1 - q)), the implicit policy of what failed; A = 0: nothing.

    q is the share of the group that is right, held within [q_low, q_high]; the argument of the negative logarithm is
    held above `floor` with its gradient let through. `weight` is a factor on all of a group's tokens: none, `1-q`, or
    `sqrt` for sqrt((1 - q) / q).
    Source: NFT, arXiv 2505.18116; NVlabs/NFT, dp_actor.py.
    """

    reinforce_at_one: ClassVar[bool] = False
    q_low: float = 0.02
    q_high: float = 0.98
    neg_weight: float = 1.0
    weight: str = "sqrt"
    floor: float = 1e-2
    aggregation: str = "token-sum"
    coefficient: float = 1e-3

    def _check(self) -> None:
        if not 0.0 < self.q_low <= self.q_high < 1.0 or self.floor <= 0.0:
            raise ValueError(f"q_low {self.q_low} and q_high {self.q_high} must rise within 0 to 1, floor above 0")
        if self.weight not in ("1-q", "none", "sqrt"):
            raise ValueError(f"weight is {self.weight!r}; expected one of 1-q, none, sqrt")

    def group_weight(self, rate: float) -> float:
        """The factor on a group's tokens by its share of right answers."""
        q = min(max(rate, self.q_low), self.q_high)
        return {"none": 1.0, "1-q": 1.0 - q, "sqrt": math.sqrt((1.0 - q) / q)}[self.weight]

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The two likelihoods, and the mean share of right answers over the tokens."""
        batch, ratio = tokens.batch, tokens.ratio
        rate = batch.peers_solved / np.maximum(batch.peers, 1)
        q = tensor_like(tokens.lp, rate[batch.trajectory_of_token]).clamp(self.q_low, self.q_high)
        implicit = (1.0 - q * ratio) / (1.0 - q)
        held = implicit + (implicit.clamp(min=self.floor) - implicit).detach()
        loss = torch.where(tokens.A > 0, -log_ratio(tokens.lp, tokens.old), -self.neg_weight * held.log())
        weights = np.array([self.group_weight(float(value)) for value in rate])
        weight = tensor_like(tokens.lp, weights[batch.trajectory_of_token])
        return torch.where(tokens.A == 0, torch.zeros_like(loss), weight * loss), {"group_rate": tokens.mean(q)}
