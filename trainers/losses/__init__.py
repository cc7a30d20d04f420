"""Policy losses: token losses with their mask and aggregation."""

from __future__ import annotations

from agenthub.trainers.losses.base import PolicyLoss, Tokens
from agenthub.trainers.losses.clipped import BAPO, CISPO, PPO, clipped_surrogate
from agenthub.trainers.losses.expert import AHPO, CHORD, RLSFT, SFT, CritiqueGRPO, THORLoss
from agenthub.trainers.losses.regularise import KL, Chi2, ConvexKL, ReVal, kl_estimate
from agenthub.trainers.losses.sequence import GSPO, GSPOToken
from agenthub.trainers.losses.smooth import NFT, R2VPO, SAPO, MiniRL, OPMDLoss, Reinforce

__all__ = [
    "AHPO",
    "BAPO",
    "CHORD",
    "CISPO",
    "GSPO",
    "KL",
    "NFT",
    "PPO",
    "R2VPO",
    "RLSFT",
    "SAPO",
    "SFT",
    "Chi2",
    "ConvexKL",
    "CritiqueGRPO",
    "GSPOToken",
    "MiniRL",
    "OPMDLoss",
    "PolicyLoss",
    "ReVal",
    "Reinforce",
    "THORLoss",
    "Tokens",
    "clipped_surrogate",
    "kl_estimate",
]
