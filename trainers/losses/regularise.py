"""Losses that hold the policy near another one, or fit its own logits as a value function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agenthub.trainers.aggregate import Term
from agenthub.trainers.losses.base import PolicyLoss, Tokens, log_ratio, mask_of, tensor_like
from agenthub.trainers.plugins import LossState
from agenthub.trainers.types import Batch

__all__ = ["KL", "Chi2", "ConvexKL", "ReVal", "kl_estimate"]

ESTIMATORS = ("k1", "k2", "k3")


def kl_estimate(lp: Tensor, ref: Tensor, estimator: str) -> Tensor:
    """Per-token estimate of KL(pi || ref) from a token of pi, f32[T]; d = ref - lp.

    k1: -d. k2: d^2 / 2. k3: e^d - d - 1.
    Source: J. Schulman, Approximating KL divergence (2020); verl `kl_penalty_forward`. d is held within +-20 in k3
    alone, where it is an exponent: the others would lose their gradient where the policy has strayed furthest.
    """
    d = ref.detach() - lp
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return d**2 / 2.0
    held = -log_ratio(lp, ref)
    return held.exp() - held - 1.0


def reference(row: NDArray[Any] | None, like: Tensor, what: str) -> Tensor:
    """The row as a tensor.

    Raises:
        ValueError: it is None.
    """
    if row is None:
        raise ValueError(f"this loss needs {what}")
    return tensor_like(like, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class KL(PolicyLoss):
    """The estimate of KL(pi || reference) on the policy's own tokens; a regulariser beside another loss.

    Source: J. Schulman, Approximating KL divergence (2020); DeepSeekMath, arXiv 2402.03300, eq. 4, takes k3.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref"})
    inert_at_zero: ClassVar[bool] = False
    reinforce_at_one: ClassVar[bool] = False
    estimator: str = "k3"
    coefficient: float = 1e-3

    def _check(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"estimator is {self.estimator!r}; expected one of {', '.join(ESTIMATORS)}")

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The estimate, and its mean."""
        ref = reference(tokens.batch.scores.ref_logprobs, tokens.lp, "a reference model")
        loss = kl_estimate(tokens.lp, torch.where(tokens.mask, ref, tokens.lp.detach()), self.estimator)
        return loss, {"kl_ref": tokens.mean(loss)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvexKL(KL):
    """lam KL(pi || reference) + (1 - lam) KL(pi || old).

    Source: ReMix, arXiv 2507.06892; no training code. `lam` is assumed.
    """

    lam: float = 0.5

    def _check(self) -> None:
        KL._check(self)
        if not 0.0 <= self.lam <= 1.0:
            raise ValueError(f"lam is {self.lam}; expected 0 to 1")

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The two estimates' mixture, and the first one's mean."""
        base, metrics = KL.token_loss(self, tokens)
        return self.lam * base + (1.0 - self.lam) * kl_estimate(tokens.lp, tokens.old, self.estimator), metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Chi2(PolicyLoss):
    """(pi / old)(pi / reference) - 1: its mean over the old policy's tokens is chi^2(pi || reference), gradient too.

    Source: chi-squared preference optimisation, arXiv 2407.13399, for the divergence; the estimator is ours.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref"})
    inert_at_zero: ClassVar[bool] = False
    reinforce_at_one: ClassVar[bool] = False
    coefficient: float = 1e-3

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The estimate, and its mean."""
        ref = reference(tokens.batch.scores.ref_logprobs, tokens.lp, "a reference model")
        ref = torch.where(tokens.mask, ref, tokens.lp.detach())
        loss = (log_ratio(tokens.lp, tokens.old) + log_ratio(tokens.lp, ref)).exp() - 1.0
        return loss, {"chi2_ref": tokens.mean(loss)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReVal(PolicyLoss):
    """(V(s1) - V_ref(s1) + log pi(tau) - log pi_ref(tau) - R / beta)^2 for each trajectory; mean over trajectories.

    V is the logsumexp of the logits before the first action token, the log-probabilities are summed over all action
    tokens in the loss. Neither advantages nor weights enter.
    Source: ReVal, arXiv 2603.23355; the reference is renewed every 200 updates there.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"first_state_logsumexp", "ref"})
    inert_at_zero: ClassVar[bool] = False
    reinforce_at_one: ClassVar[bool] = False
    beta: float = 0.02

    def _check(self) -> None:
        if self.beta <= 0.0:
            raise ValueError(f"beta is {self.beta}; expected more than 0")

    def residuals(self, lp: Tensor, batch: Batch, state: LossState) -> tuple[Tensor, Tensor]:
        """(residual of each trajectory f32[N], place of its first token in the loss i64[N], -1 where it has none)"""
        if state.logsumexp is None:
            raise ValueError("reval needs the logits of the first state")
        mask = mask_of(lp, batch.in_loss)
        owner = torch.as_tensor(batch.trajectory_of_token, dtype=torch.int64, device=lp.device)
        ref = reference(batch.scores.ref_logprobs, lp, "a reference model")
        gap = torch.where(mask, lp - ref, torch.zeros_like(lp))
        sums = lp.new_zeros(batch.trajectories).index_add(0, owner, gap)
        first = np.full(batch.trajectories, -1, np.int64)
        places = np.flatnonzero(batch.in_loss)[::-1]
        first[batch.trajectory_of_token[places]] = places
        place = torch.as_tensor(first, device=lp.device)
        v_ref = reference(batch.scores.ref_logsumexp, lp, "the reference model's logits")
        value = (state.logsumexp - v_ref)[place.clamp(min=0)]
        return value + sums - tensor_like(lp, batch.rewards) / self.beta, place

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """One term, each trajectory's square at its first token in the loss."""
        if not batch.in_loss.any():
            return [self.term(lp.nan_to_num() * 0.0, mask_of(lp, batch.in_loss), {})]
        residual, place = self.residuals(lp, batch, state)
        used = place >= 0
        loss = torch.zeros_like(lp).index_copy(0, place[used], residual[used] ** 2)
        mask = torch.zeros_like(lp, dtype=torch.bool).index_fill(0, place[used], True)
        return [self.term(loss, mask, {"bellman_residual": residual[used].detach().abs().mean()})]
