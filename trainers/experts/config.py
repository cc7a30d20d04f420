"""The part of a recipe that names its experts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agenthub.config import ConfigModel

__all__ = ["ORACLE", "OWN", "ExpertsConfig"]

ORACLE = "oracle"
OWN = "own"


class ExpertsConfig(ConfigModel):
    """Recorded trajectories beside what the policy plays, or in its place."""

    source: str = Field(
        default=ORACLE,
        min_length=1,
        description="oracle: the suite's solutions, played on the hub; own: what this run has solved; else a JSONL "
        "file of trajectories (of a run, of `agenthub record`, or of `agenthub play --save`)",
    )
    per_group: int = Field(default=1, ge=1, le=64, description="experts beside each group")
    match: Literal["task", "any"] = Field(default="task", description="task: of the group's own task; any: of any")
    only: bool = Field(default=False, description="the experts alone train: the policy plays nothing")
    solved: bool = Field(default=True, description="only trajectories with the full outcome count")
    capacity: int = Field(default=512, ge=1, description="of the newest trajectories of `own`, how many are kept")
