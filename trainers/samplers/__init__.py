"""Samplers: which tasks the next update plays, and what is played again."""

from __future__ import annotations

from agenthub.trainers.samplers.curriculum import Dump, HardFocus, Limr, Staged
from agenthub.trainers.samplers.replay import FifoReplay
from agenthub.trainers.samplers.uniform import Sampler, Uniform, UniformState

__all__ = ["Dump", "FifoReplay", "HardFocus", "Limr", "Sampler", "Staged", "Uniform", "UniformState"]
