"""What the losses share: the tokens as tensors, one aggregation, no state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agenthub.trainers.aggregate import Term, check_mode
from agenthub.trainers.plugins import LossState
from agenthub.trainers.types import EXPERT, Batch

__all__ = ["LOG_RATIO_BOUND", "PolicyLoss", "Tokens", "log_ratio", "mask_of", "tensor_like"]

LOG_RATIO_BOUND = 20.0


def tensor_like(lp: Tensor, values: NDArray[Any]) -> Tensor:
    """`values` on the device and in the type of `lp`."""
    return torch.as_tensor(np.array(values), dtype=lp.dtype, device=lp.device)


def mask_of(lp: Tensor, values: NDArray[np.bool_]) -> Tensor:
    """`values` on the device of `lp`."""
    return torch.as_tensor(np.array(values), device=lp.device)


def log_ratio(lp: Tensor, other: Tensor) -> Tensor:
    """lp - other, held within +-20; gradient flows through `lp` alone."""
    return (lp - other.detach()).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A batch as a loss sees it; tensors are f32[T] unless it is said otherwise."""

    lp: Tensor
    """Log-probabilities with gradient on the mask; `old` elsewhere."""
    old: Tensor
    A: Tensor
    """Detached; 0 off the mask."""
    mask: Tensor
    """bool[T]: in the loss, and not an expert's."""
    batch: Batch
    state: LossState

    @classmethod
    def of(cls, lp: Tensor, batch: Batch, A: Tensor, state: LossState) -> Tokens:
        """The batch's tokens that the policy itself sampled."""
        old = tensor_like(lp, batch.old_logprobs)
        mask = mask_of(lp, batch.in_loss & ~batch.tokens_by(EXPERT))
        A = torch.where(mask, A.detach(), torch.zeros_like(A))
        return cls(lp=torch.where(mask, lp, old), old=old, A=A.to(lp.dtype), mask=mask, batch=batch, state=state)

    @property
    def ratio(self) -> Tensor:
        """r = exp(lp - old), the log-ratio held within +-20."""
        return log_ratio(self.lp, self.old).exp()

    def mean(self, values: Tensor) -> Tensor:
        """Detached mean of `values` over the mask; 0 where it is empty."""
        return (values.detach() * self.mask).sum() / self.mask.sum().clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A loss of one term: w times `token_loss`, aggregated as named."""

    needs: ClassVar[frozenset[str]] = frozenset()
    inert_at_zero: ClassVar[bool] = True
    reinforce_at_one: ClassVar[bool] = True
    """With a ratio of 1 and a weight of 1 its gradient is REINFORCE's."""
    corrects: ClassVar[bool] = False
    """It weighs with the rollout's own probabilities itself, so that a correction would count twice."""
    aggregation: str = "token-mean"
    """How token losses become one number; `trainers/aggregate.py` has the modes."""
    max_length: int = 0
    """Constant length of `seq-mean-token-sum-norm`."""
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        check_mode(self.aggregation, self.max_length)
        self._check()

    def _check(self) -> None:
        """Refuse settings that make no sense."""

    def start(self) -> dict[str, float]:
        """The state before the first update; empty where there is none."""
        return {}

    def advance(self, state: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after an optimiser step with these metrics."""
        return dict(state)

    def token_loss(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss f32[T], detached scalars by name)"""
        raise NotImplementedError

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """One term on `batch.in_loss`."""
        tokens = Tokens.of(lp, batch, A, state)
        loss, metrics = self.token_loss(tokens)
        return [self.term(w.detach() * loss, tokens.mask, metrics)]

    def term(self, loss: Tensor, mask: Tensor, metrics: Mapping[str, Tensor], factor: float = 1.0) -> Term:
        """A term under this loss's aggregation."""
        return Term(
            loss=loss,
            mask=mask,
            aggregation=self.aggregation,
            coefficient=self.coefficient * factor,
            max_length=self.max_length,
            metrics=metrics,
        )
