"""What of an update was not played straight from the root: counted from the trajectories themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agenthub.records import Trajectory
from agenthub.trainers.credit.trees import shared_tokens
from agenthub.trainers.types import EXECUTED, EXPERT, REFINED, Batch

__all__ = ["is_suffix", "mechanism_metrics"]


def is_suffix(trajectory: Trajectory) -> bool:
    """It ended after one turn that was sampled again: no episode, and its reward is no outcome."""
    return EXECUTED in trajectory.rewards


def mechanism_metrics(trajectories: Sequence[Trajectory], batch: Batch) -> dict[str, Any]:
    """Counts by mechanism; what did not occur is left out.

    branches: episodes forked from others. shared_tokens: sampled tokens that stand in more than one of them; `tokens`
    counts them once. backtracks, backtracks_executed: suffixes grown from failed calls, and those whose call executed.
    guided, guide_tokens: episodes that began with an oracle's tokens. refined: second attempts after a critique.
    horizon: most turns that an episode was allowed.
    """
    suffixes = [one for one in trajectories if is_suffix(one)]
    forked = [one for one in trajectories if one.fork_turn is not None and not is_suffix(one)]
    guided = [int(one.metadata["guide_tokens"]) for one in trajectories if "guide_tokens" in one.metadata]
    shared = shared_tokens(batch)
    own = batch.action_mask & ~shared & ~batch.tokens_by(EXPERT)
    counts: dict[str, int] = {
        "branches": len(forked),
        "shared_tokens": int(shared.sum()),
        "backtracks": len(suffixes),
        "backtracks_executed": sum(one.rewards[EXECUTED] > 0.0 for one in suffixes),
        "guided": len(guided),
        "guide_tokens": sum(guided),
        "refined": sum(map(_refined, trajectories)),
        "horizon": max((int(one.metadata.get("horizon", 0)) for one in trajectories), default=0),
    }
    once = {"tokens": int(own.sum())} if shared.any() else {}
    return {name: count for name, count in counts.items() if count} | once


def _refined(trajectory: Trajectory) -> bool:
    return any(turn.generation is not None and turn.generation.policy == REFINED for turn in trajectory.turns)
