"""Credit from sets of unlike members that are good together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import ClassVar

import numpy as np

from agenthub.trainers.credit.trees import forked_states, shared_tokens
from agenthub.trainers.credit.turns import on_turns
from agenthub.trainers.types import Batch, Bools, Doubles, Reason

__all__ = ["Polychromic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Polychromic:
    """A member's mean over the sets of k that it is in, less the mean over all sets of its state.

    A set's score is its mean reward times the share of distinct action texts in it, so that alike members gain less.
    The members of a state are those that go on from it: a group's roots at its first turn, and at a forked state the
    forked ones with the one they were forked from, by their texts from there on. A turn's advantage is that of the last
    state before it with more than k members.
    Source: Polychromic Objectives for RL, arXiv 2509.25424.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    k: int = 2

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}; expected 1 or more")

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        edges: list[list[tuple[int, float]]] = [[(0, 0.0)] for _ in range(batch.trajectories)]
        for turn, members in self._states(batch):
            values = self._of_state([_texts(batch, n, turn) for n in members], batch.rewards[members])
            for n, value in zip(members, values.tolist(), strict=True):
                edges[n].append((turn, value))
        per_turn = np.zeros(len(batch.turns))
        for n, known in enumerate(edges):
            mine = np.flatnonzero(batch.trajectory_of_turn == n)
            for (a, value), (b, _) in pairwise([*sorted(known, key=lambda edge: edge[0]), (mine.size, 0.0)]):
                per_turn[mine[a:b]] = value
            if batch.parent[n] >= 0:
                per_turn[mine[: int(batch.fork_turn[n])]] = 0.0
        return on_turns(batch, per_turn)

    def _states(self, batch: Batch) -> Iterator[tuple[int, list[int]]]:
        """(turn before which a state was gone on from, its members that count), for those with more than k."""
        counts = batch.trajectory_in_stats
        roots = counts & (batch.fork_turn < 0)
        states = [
            (0, np.flatnonzero(roots & (batch.group_of_trajectory == g)).tolist()) for g in range(len(batch.groups))
        ]
        for (_, turn), members in forked_states(batch).items():
            states.append((turn, [n for n in members if counts[n]]))
        return ((turn, members) for turn, members in states if len(members) > self.k)

    def _of_state(self, texts: Sequence[tuple[str, ...]], rewards: Doubles) -> Doubles:
        total, number = np.zeros(rewards.size), np.zeros(rewards.size)
        scores = []
        for rows in combinations(range(rewards.size), self.k):
            chosen = list(rows)
            score = float(rewards[chosen].mean()) * len({texts[row] for row in rows}) / self.k
            total[chosen] += score
            number[chosen] += 1
            scores.append(score)
        return total / number - float(np.mean(scores))

    def leaves_out(self, batch: Batch) -> Mapping[Reason, Bools]:
        """Shared turns train in the trajectory that took them."""
        return {Reason.PREFIX: shared_tokens(batch)}

    def metrics(self, batch: Batch) -> Mapping[str, float]:
        """How many forked states have sets of their own."""
        return {"forked_sets": float(sum(turn > 0 for turn, _ in self._states(batch)))}


def _texts(batch: Batch, n: int, turn: int) -> tuple[str, ...]:
    """What a trajectory said from a turn on."""
    return tuple(batch.turns[k].text for k in np.flatnonzero(batch.trajectory_of_turn == n)[turn:].tolist())
