"""Credit from forked episodes: several continuations of one state say what that state is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from agenthub.records import Ints
from agenthub.trainers.credit.group import group_normalised, leave_one_out, on_tokens, positive
from agenthub.trainers.credit.trees import forked_states, origin, shared_tokens, through
from agenthub.trainers.credit.turns import on_turns
from agenthub.trainers.types import Batch, Bools, Doubles, Reason

__all__ = ["AEPO", "ARPO", "THOR", "TurnValueByFork"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Credit on leaves, some of which share turns."""

    sharing: str = "soft"
    """soft: shared turns stand in the loss once for each leaf, with that leaf's advantage; hard: once in all, with the
    mean of the advantages of the leaves through them."""
    eps: float = 1e-6

    def __post_init__(self) -> None:
        positive(eps=self.eps)
        if self.sharing not in ("hard", "soft"):
            raise ValueError(f"sharing is {self.sharing!r}; expected one of hard, soft")

    def spread(self, batch: Batch, leaf: Doubles) -> Doubles:
        """f64[T] from f64[N]"""
        if self.sharing == "soft":
            return on_tokens(batch, leaf)
        branches = through(batch)
        per_turn = [
            float(np.mean(leaf[branches[origin(batch, n, t), t]]))
            for n, t in zip(batch.trajectory_of_turn.tolist(), batch.turn_index.tolist(), strict=True)
        ]
        return on_turns(batch, np.array(per_turn, np.float64))

    def leaves_out(self, batch: Batch) -> Mapping[Reason, Bools]:
        """Hard: what a leaf shares is in its parent's rows."""
        return {Reason.PREFIX: shared_tokens(batch)} if self.sharing == "hard" else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ARPO(_Shared):
    """GRPO on each leaf; `hard`: a turn that several branches share gets the mean of their advantages, once.

    Source: ARPO, arXiv 2507.19849; soft, the default of the paper, leaves the sharing to the ratio.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        return self.spread(batch, group_normalised(batch.rewards, group, counts, eps=self.eps))


@dataclass(frozen=True, slots=True, kw_only=True)
class AEPO(_Shared):
    """A = A_acc (1 + alpha A_dH): A_acc is GRPO's, A_dH the group-normalised mean entropy of a trajectory's tokens.

    Source: AEPO, arXiv 2510.14545.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"entropies"})
    alpha: float = 0.3

    def shaped(self, accuracy: Doubles, entropy: Doubles, group: Ints, counts: Bools) -> Doubles:
        """f64[N]: the advantages `accuracy` scaled by how far each mean `entropy` is from its group's."""
        return accuracy * (1.0 + self.alpha * group_normalised(entropy, group, counts, eps=self.eps))

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        if batch.scores.entropies is None:
            raise ValueError("aepo needs the entropies of the sampled tokens")
        owner = batch.trajectory_of_token[batch.action_mask]
        sums = np.bincount(owner, batch.scores.entropies[batch.action_mask], minlength=batch.trajectories)
        entropy = sums / np.maximum(np.bincount(owner, minlength=batch.trajectories), 1)
        accuracy = group_normalised(batch.rewards, group, counts, eps=self.eps)
        return self.spread(batch, self.shaped(accuracy, entropy, group, counts))


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
    own return. The trajectory itself never votes on a baseline of its own, so that with every turn forked E[A] of a
    turn is exactly the policy's advantage. A forked trajectory's first turns are its parent's, which gets their credit.
    Source: VinePPO, arXiv 2410.01679, with forked episodes for re-sampled prefixes.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"fork"})
    train: str = "roots"
    """roots: the forked ones give values and do not train, as published; all: they train too, and a turn's advantage is
    divided by the continuations of each state forked at or before it, so that late turns weigh no more than early
    ones."""

    def __post_init__(self) -> None:
        if self.train not in ("all", "roots"):
            raise ValueError(f"train is {self.train!r}; expected one of all, roots")

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
                others = [j for j in forks.get((origin(batch, n, t - 1), t), []) if j != n and counts[j]]
                if others:
                    edges.append((t, _mean(batch.rewards[others])))
            edges.append((mine.size, float(batch.rewards[n])))
            for (a, value_a), (b, value_b) in pairwise(edges):
                per_turn[mine[a:b]] = value_b - value_a
        return on_turns(batch, per_turn * self._weights(batch, forks) if self.train == "all" else per_turn)

    def _weights(self, batch: Batch, forks: Mapping[tuple[int, int], list[int]]) -> Doubles:
        """f64[K]: 1 over the continuations of every state forked at or before the turn, multiplied."""
        counts, out = batch.trajectory_in_stats, np.ones(len(batch.turns))
        for n in range(batch.trajectories):
            weight = 1.0
            for t, k in enumerate(np.flatnonzero(batch.trajectory_of_turn == n).tolist()):
                row = forks.get((origin(batch, n, t - 1), t), ()) if t else ()
                weight /= max(1, sum(1 for j in row if counts[j]))
                out[k] = weight
        return out

    def leaves_out(self, batch: Batch) -> Mapping[Reason, Bools]:
        """Shared turns train in the trajectory that took them; with `roots`, forked trajectories do not train."""
        if self.train == "all":
            return {Reason.PREFIX: shared_tokens(batch)}
        return {Reason.VALUE: batch.action_mask & (batch.fork_turn[batch.trajectory_of_token] >= 0)}

    def metrics(self, batch: Batch) -> Mapping[str, float]:
        """How many states have a value of their own."""
        return {"valued_states": float(len(forked_states(batch)))}


def _mean(values: Doubles) -> float:
    """The mean; of equal values exactly their value."""
    return float(values[0] if np.ptp(values) == 0.0 else values.mean())
