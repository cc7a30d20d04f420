"""Credit: from rewards to an advantage for each action token. Numpy only; f64 throughout."""

from __future__ import annotations

from agenthub.trainers.credit.forks import AEPO, ARPO, THOR, TurnValueByFork
from agenthub.trainers.credit.group import (
    GRPO,
    OPMD,
    RLOO,
    AsymRE,
    DrGRPO,
    StepWise,
    group_normalised,
    leave_one_out,
)
from agenthub.trainers.credit.roles import RoleBaseline
from agenthub.trainers.credit.sets import Polychromic
from agenthub.trainers.credit.tokens import GAE, GOPD, OPD, OTB, MultiTurnOTB
from agenthub.trainers.credit.turns import MTGRPO, FlowGRPO, GiGPO, ReturnToGo

__all__ = [
    "AEPO",
    "ARPO",
    "GAE",
    "GOPD",
    "GRPO",
    "MTGRPO",
    "OPD",
    "OPMD",
    "OTB",
    "RLOO",
    "THOR",
    "AsymRE",
    "DrGRPO",
    "FlowGRPO",
    "GiGPO",
    "MultiTurnOTB",
    "Polychromic",
    "ReturnToGo",
    "RoleBaseline",
    "StepWise",
    "TurnValueByFork",
    "group_normalised",
    "leave_one_out",
]
