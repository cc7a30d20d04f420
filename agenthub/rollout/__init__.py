"""Rollout: plays groups of episodes on a hub with a policy, and keeps every token.

Owns the tokens and the sampling on the trainer's side: prompts are extended by ids, never rendered again, and each
turn's `Generation` is what the engine consumed and produced. What a group grows into beyond its roots (forks, guided or
refined attempts) is decided by a `Strategy`; the collector plays it.
"""

from __future__ import annotations

from agenthub.rollout.collector import Collector
from agenthub.rollout.growth import Growth, Roots, Strategy
from agenthub.rollout.seats import Group, Seat
from agenthub.rollout.types import CollectStats, Critique, Play, Start, turn_seed

__all__ = [
    "CollectStats",
    "Collector",
    "Critique",
    "Group",
    "Growth",
    "Play",
    "Roots",
    "Seat",
    "Start",
    "Strategy",
    "turn_seed",
]
