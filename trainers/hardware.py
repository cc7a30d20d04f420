"""What the learner computes on and in: device, precision, processes that share the model."""

from __future__ import annotations

import os
from typing import Literal

import torch
from pydantic import Field, model_validator

from agenthub.config import ConfigModel
from agenthub.errors import UserError

__all__ = ["LearnerConfig", "device_of", "set_up"]


class LearnerConfig(ConfigModel):
    """Where and in what precision the model trains."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes a GPU where there is one")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16 computes in it; weights and the optimiser's states stay float32"
    )
    checkpointing: bool = Field(
        default=False, description="keep what goes into each block and compute the rest again: less memory, more time"
    )
    shards: int | None = Field(
        default=None, ge=1, description="processes that share the model; null is as many as torchrun started"
    )
    offload: bool = Field(default=False, description="weights and the optimiser's states lie in the host's memory")
    timeout_s: float = Field(default=600.0, ge=1.0, description="how long a process waits for the others in an update")
    logits: int | None = Field(
        default=None, ge=1, description="most logits that are held at once; null is 2^24 on a CPU, 2^27 on a GPU"
    )

    @model_validator(mode="after")
    def _consistent(self) -> LearnerConfig:
        if self.offload and self.device == "cpu":
            raise ValueError("offload moves weights off a GPU; with device: cpu there is nothing to move")
        return self

    def check(self, size: int) -> None:
        """Refuse another number of processes than was asked for.

        Raises:
            UserError: so it is.
        """
        if self.shards not in (None, size):
            raise UserError(
                f"learner.shards is {self.shards}, and {size} run; start them with: "
                f"torchrun --nproc-per-node {self.shards} -m agenthub train ..."
            )


def device_of(config: LearnerConfig) -> torch.device:
    """The device that trains.

    Raises:
        UserError: it is not here.
    """
    here = torch.cuda.is_available()
    if config.device == "cuda" and not here:
        raise UserError("learner.device is cuda, and torch finds no GPU; expected cpu or auto")
    return torch.device("cuda", torch.cuda.current_device()) if here and config.device != "cpu" else torch.device("cpu")


def set_up(*, deterministic: bool) -> None:
    """Let the same numbers give the same numbers, or let torch choose what is fastest."""
    torch.use_deterministic_algorithms(deterministic)
    # Torch then fills all memory that it takes, which finds who reads what was never written; nothing here does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if deterministic:
        # Products of matrices on a GPU want it before the first one; older versions of torch refuse them without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
