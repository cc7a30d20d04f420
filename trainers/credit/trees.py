"""Groups as trees: which turns a forked trajectory shares with its parent, and which states were gone on from often."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from agenthub.trainers.types import Batch, Bools

__all__ = ["forked_states", "origin", "shared_tokens", "through"]


def origin(batch: Batch, n: int, t: int) -> int:
    """The trajectory that first took turn `t` of trajectory `n`."""
    while batch.parent[n] >= 0 and t < batch.fork_turn[n]:
        n = int(batch.parent[n])
    return n


def through(batch: Batch) -> dict[tuple[int, int], list[int]]:
    """By (trajectory that first took a turn, turn index), the trajectories through that turn.

    A forked trajectory shares its first `fork_turn` turns with its parent; one whose parent is not in the batch is
    taken as having them alone.
    """
    members: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for n, t in zip(batch.trajectory_of_turn.tolist(), batch.turn_index.tolist(), strict=True):
        members[origin(batch, n, t), t].append(n)
    return dict(members)


def forked_states(batch: Batch) -> dict[tuple[int, int], list[int]]:
    """By (trajectory that took the turn before, turn index), those that go on from there: parent and forked ones."""
    found: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for n in np.flatnonzero((batch.parent >= 0) & (batch.fork_turn > 0)).tolist():
        parent, t = int(batch.parent[n]), int(batch.fork_turn[n])
        row = found[origin(batch, parent, t - 1), t]
        row += [member for member in (parent, n) if member not in row]
    return dict(found)


def shared_tokens(batch: Batch) -> Bools:
    """bool[T]: action tokens that the trajectory's parent sampled, and which stand in the parent's rows as well."""
    owner = batch.trajectory_of_token
    early = batch.turn_index[batch.turn_of_token] < batch.fork_turn[owner]
    return batch.action_mask & early & (batch.parent[owner] >= 0)
