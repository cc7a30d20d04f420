"""The part of a recipe that says whether groups are played anew."""

from __future__ import annotations

from pydantic import Field

from agenthub.config import ConfigModel

__all__ = ["RefillConfig"]


class RefillConfig(ConfigModel):
    """Groups that the filter throws away are played anew on other tasks."""

    rounds: int = Field(default=3, ge=1, le=64, description="how often at most; what is thrown away then stays so")
