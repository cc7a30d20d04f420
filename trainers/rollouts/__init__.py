"""Rollout strategies: how many turns, which prefix, how many roots, where to branch, what is tried again.

A strategy is a config dataclass. Its rules are pure functions; `grow` makes the state of one group, which lives as long
as the group is played, so that nothing need be saved between updates.
"""

from __future__ import annotations

from agenthub.trainers.rollouts.again import Critique, Pope, ThorBacktrack
from agenthub.trainers.rollouts.bound import Bound, bind
from agenthub.trainers.rollouts.branching import AEPO, ARPO, TurnValues
from agenthub.trainers.rollouts.plain import Fixed, ScalingInter

__all__ = ["AEPO", "ARPO", "Bound", "Critique", "Fixed", "Pope", "ScalingInter", "ThorBacktrack", "TurnValues", "bind"]
