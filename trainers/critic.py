"""A critic: a linear head on the policy's last hidden states, which it never moves, fitted to returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from agenthub.config import ConfigModel
from agenthub.trainers.types import Bools, Doubles

__all__ = ["Critic", "CriticConfig"]


class CriticConfig(ConfigModel):
    """PPO-max's settings (arXiv 2307.04964) but for the trunk, which is the policy's own."""

    lr: float = Field(default=1e-2, gt=0.0)
    steps: int = Field(default=8, ge=1, description="gradient steps after each update, each on all its tokens")
    clip: float | None = Field(default=0.2, gt=0.0, description="bound on how far a value moves in an update")


class Critic:
    """Values before each action token. The head starts at 0, so that the first update has no baseline."""

    def __init__(self, width: int, config: CriticConfig, device: torch.device) -> None:
        self._config = config
        self._head = torch.nn.Linear(width, 1).to(device)
        with torch.no_grad():
            for parameter in self._head.parameters():
                parameter.zero_()
        self._optimiser = torch.optim.Adam(self._head.parameters(), lr=config.lr)
        self._hidden: Tensor | None = None

    @torch.no_grad()
    def values(self, hidden: Tensor) -> NDArray[Any]:
        """f32[M]; the states are remembered for the next `fit`.

        Args:
            hidden: f32[M, width], detached.
        """
        self._hidden = hidden
        values: NDArray[Any] = self._head(hidden)[:, 0].cpu().numpy()
        return values

    def fit(self, returns: Doubles, counted: Bools) -> float:
        """Move the head towards the returns of the tokens that `values` last saw; the mean squared error before.

        Loss: mean of max((V - G)^2, (clip(V, V_old - c, V_old + c) - G)^2) / 2.

        Args:
            returns: f64[M]. counted: bool[M].
        """
        if self._hidden is None or not counted.any():
            return 0.0
        rows = torch.as_tensor(np.flatnonzero(counted), device=self._hidden.device)
        hidden = self._hidden.index_select(0, rows)
        goal = torch.as_tensor(returns[counted], dtype=hidden.dtype, device=hidden.device)
        before = self._head(hidden)[:, 0].detach()
        for _ in range(self._config.steps):
            value = self._head(hidden)[:, 0]
            error = (value - goal) ** 2
            if self._config.clip is not None:
                near = before + (value - before).clamp(-self._config.clip, self._config.clip)
                error = torch.maximum(error, (near - goal) ** 2)
            self._optimiser.zero_grad()
            (error.mean() / 2.0).backward()
            self._optimiser.step()
        return float(((before - goal) ** 2).mean())

    def state_dict(self) -> dict[str, Any]:
        """Head and optimiser, by reference."""
        return {"head": self._head.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._head.load_state_dict(state["head"])
        self._optimiser.load_state_dict(state["optimiser"])
