"""Credit from forked episodes: several continuations of one state say what that state is worth."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import ClassVar

import numpy as np

from agenthub.trainers.credit.group import group_normalised, leave_one_out, on_tokens, positive
from agenthub.trainers.credit.turns import on_turns
from agenthub.trainers.types import Batch, Doubles

__all__ = ["ARPO", "THOR", "Polychromic", "TurnValueByFork", "forked_states", "through"]


def through(batch: Batch) -> dict[tuple[int, int], list[int]]:
    """By (trajectory that first took a turn, turn index), the trajectories through that turn.

    A forked trajectory shares its first `fork_turn` turns with its parent; one whose parent is not in the batch is
    taken as having them alone.
    """
    members: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for n, t in zip(batch.trajectory_of_turn.tolist(), batch.turn_index.tolist(), strict=True):
        members[_origin(batch, n, t), t].append(n)
    return dict(members)


def _origin(batch: Batch, n: int, t: int) -> int:
    while batch.parent[n] >= 0 and t < batch.fork_turn[n]:
        n = int(batch.parent[n])
    return n


@dataclass(frozen=True, slots=True, kw_only=True)
class ARPO:
    """GRPO on each leaf; `hard`: a turn that several branches share gets the mean of their advantages.

    Source: ARPO, arXiv 2507.19849; soft, the default of the paper, leaves the sharing to the ratio.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    sharing: str = "soft"
    """soft, hard"""
    eps: float = 1e-6

    def __post_init__(self) -> None:
        positive(eps=self.eps)
        if self.sharing not in ("hard", "soft"):
            raise ValueError(f"sharing is {self.sharing!r}; expected one of hard, soft")

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        leaf = group_normalised(batch.rewards, group, counts, eps=self.eps)
        if self.sharing == "soft":
            return on_tokens(batch, leaf)
        branches = through(batch)
        per_turn = [
            float(np.mean(leaf[branches[_origin(batch, n, t), t]]))
            for n, t in zip(batch.trajectory_of_turn.tolist(), batch.turn_index.tolist(), strict=True)
        ]
        return on_turns(batch, np.array(per_turn, np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class THOR:
    """GRPO within each group, where the suffixes grown from one failed call are a group of their own.

    A suffix's reward is whether its call executes. The turns before the fork are not in the loss: the filter `thor`
    says so.
    Source: THOR, arXiv 2509.13761; JingMog/THOR, vllm_rollout_spmd.py.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    eps: float = 1e-6

    def __post_init__(self) -> None:
        positive(eps=self.eps)

    def opens(self, batch: Batch) -> list[int]:
        """Trajectories that a step group is grown from: those with a call that failed, forked ones excepted."""
        failed = np.zeros(batch.trajectories, bool)
        failed[batch.trajectory_of_turn[[turn.failed_calls > 0 for turn in batch.turns]]] = True
        return [int(n) for n in np.flatnonzero(failed & (batch.fork_turn < 0))]

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]: forked trajectories are compared with those that were forked at the same turn of the same one."""
        places: dict[tuple[int, int, int], int] = {}
        keys = zip(batch.group_of_trajectory.tolist(), batch.parent.tolist(), batch.fork_turn.tolist(), strict=True)
        own = [places.setdefault((g, p, t) if t >= 0 else (g, -1, -1), len(places)) for g, p, t in keys]
        counts = batch.trajectory_in_stats
        return on_tokens(batch, group_normalised(batch.rewards, np.array(own, np.int32), counts, eps=self.eps))


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnValueByFork:
    """A = V_b - V_a on the turns between two forked states a and b of a trajectory, V the mean return from that state.

    V_a is the mean over the other continuations of the state before turn a: those forked there, and the one they were
    forked from. Before the first turn it is the mean over the group's other roots, after the last turn the trajectory's
    own return. The trajectory itself never votes on a baseline of its own. A forked trajectory's first turns are its
    parent's, which gets their credit.
    Source: VinePPO, arXiv 2410.01679, with forked episodes for re-sampled prefixes.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"fork"})

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        counts = batch.trajectory_in_stats
        roots = counts & (batch.fork_turn < 0)
        start = batch.rewards - leave_one_out(batch.rewards, batch.group_of_trajectory, roots)
        per_turn, forks = np.zeros(len(batch.turns)), forked_states(batch)
        for n in range(batch.trajectories):
            mine = np.flatnonzero(batch.trajectory_of_turn == n)
            begin = int(batch.fork_turn[n]) if batch.parent[n] >= 0 else 0
            edges = [(0, float(start[n]))] if begin == 0 else []
            for t in range(max(begin, 1), mine.size):
                others = [j for j in forks.get((_origin(batch, n, t - 1), t), []) if j != n and counts[j]]
                if others:
                    edges.append((t, _mean(batch.rewards[others])))
            edges.append((mine.size, float(batch.rewards[n])))
            for (a, value_a), (b, value_b) in pairwise(edges):
                per_turn[mine[a:b]] = value_b - value_a
        return on_turns(batch, per_turn)


def _mean(values: Doubles) -> float:
    """The mean; of equal values exactly their value."""
    return float(values[0] if np.ptp(values) == 0.0 else values.mean())


def forked_states(batch: Batch) -> dict[tuple[int, int], list[int]]:
    """By (trajectory that took the turn before, turn index), those that go on from there: parent and forked ones."""
    found: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for n in np.flatnonzero((batch.parent >= 0) & (batch.fork_turn > 0)).tolist():
        parent, t = int(batch.parent[n]), int(batch.fork_turn[n])
        row = found[_origin(batch, parent, t - 1), t]
        row += [member for member in (parent, n) if member not in row]
    return dict(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polychromic:
    """A member's mean over the sets of k that it is in, less the mean over all sets of its group.

    A set's score is its mean reward times the share of distinct action texts in it, so that alike members gain less.
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
        texts: list[tuple[str, ...]] = [() for _ in range(batch.trajectories)]
        for turn, n in zip(batch.turns, batch.trajectory_of_turn.tolist(), strict=True):
            texts[n] = (*texts[n], turn.text)
        out, counts = np.zeros(batch.trajectories), batch.trajectory_in_stats
        for g in range(len(batch.groups)):
            members = np.flatnonzero((batch.group_of_trajectory == g) & counts)
            if members.size > self.k:
                out[members] = self._of_group([texts[n] for n in members], batch.rewards[members])
        return on_tokens(batch, out)

    def _of_group(self, texts: list[tuple[str, ...]], rewards: Doubles) -> Doubles:
        total, number = np.zeros(rewards.size), np.zeros(rewards.size)
        scores = []
        for rows in combinations(range(rewards.size), self.k):
            chosen = list(rows)
            score = float(rewards[chosen].mean()) * len({texts[row] for row in rows}) / self.k
            total[chosen] += score
            number[chosen] += 1
            scores.append(score)
        return total / number - float(np.mean(scores))
