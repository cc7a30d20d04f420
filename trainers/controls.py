"""Controls: what a run could learn from is taken away, so that it must not learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agenthub.trainers.types import Batch

__all__ = ["shuffle_rewards"]


def shuffle_rewards(batch: Batch, seed: int) -> Batch:
    """The batch with rewards that changed hands at random within each group.

    A trajectory takes over another's outcome and the sum of its turn components, which stands on its own first turn:
    turns of different trajectories do not correspond.
    """
    rng = np.random.default_rng(seed)
    donor = np.arange(batch.trajectories)
    for g in range(len(batch.groups)):
        members = np.flatnonzero(batch.group_of_trajectory == g)
        donor[members] = rng.permutation(members)
    totals = np.zeros(batch.trajectories)
    np.add.at(totals, batch.trajectory_of_turn, batch.turn_rewards)
    turn_rewards = np.zeros_like(batch.turn_rewards)
    owners, first_turns = np.unique(batch.trajectory_of_turn, return_index=True)
    turn_rewards[first_turns] = totals[donor[owners]]
    return replace(batch, rewards=batch.rewards[donor], outcomes=batch.outcomes[donor], turn_rewards=turn_rewards)
