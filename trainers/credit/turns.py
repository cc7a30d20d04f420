"""Credit for turns: what a turn is given depends on its place, on the state it acted in, or on what came after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import ClassVar

import numpy as np

from agenthub.records import Ints
from agenthub.trainers.credit.group import group_normalised, positive
from agenthub.trainers.types import Batch, Bools, Doubles

__all__ = ["MTGRPO", "FlowGRPO", "GiGPO", "ReturnToGo", "discounted", "on_turns"]


def on_turns(batch: Batch, per_turn: Doubles) -> Doubles:
    """f64[T]: a turn's number on its action tokens, 0 elsewhere."""
    return np.where(batch.action_mask, per_turn[batch.turn_of_token], 0.0)


def discounted(rewards: Doubles, trajectory_of_turn: Ints, gamma: float) -> Doubles:
    """f64[K]: G_t = r_t + gamma G_{t+1} within each trajectory.

    Args:
        rewards: f64[K]. trajectory_of_turn: i32[K].
    """
    out = rewards.copy()
    for k in range(len(out) - 2, -1, -1):
        if trajectory_of_turn[k] == trajectory_of_turn[k + 1]:
            out[k] += gamma * out[k + 1]
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class MTGRPO:
    """Tokens up to the first tool result get A_outcome + turn_coef * A_turn, later ones A_outcome.

    A_outcome is group-normalised from the outcome component, A_turn from the sum of the turn components. A trajectory
    without a tool result has the combined advantage throughout.
    Source: arXiv 2505.11821, SiliangZeng/Multi-Turn-RL-Agent, `_assign_advantages`.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    turn_coef: float = 1.0
    eps: float = 1e-4
    ddof: int = 1

    def __post_init__(self) -> None:
        positive(eps=self.eps)

    def parts(self, batch: Batch) -> tuple[Doubles, Doubles]:
        """(A_outcome f64[N], A_turn f64[N])"""
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        turn_totals = np.zeros(batch.trajectories, np.float64)
        np.add.at(turn_totals, batch.trajectory_of_turn, batch.turn_rewards)
        a_outcome = group_normalised(batch.outcomes, group, counts, eps=self.eps, ddof=self.ddof)
        return a_outcome, group_normalised(turn_totals, group, counts, eps=self.eps, ddof=self.ddof)

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        a_outcome, a_turn = self.parts(batch)
        owner = batch.trajectory_of_token
        early = _until_first_result(batch)[batch.turn_of_token]
        a_token = a_outcome[owner] + np.where(early, self.turn_coef * a_turn[owner], 0.0)
        return np.where(batch.action_mask, a_token, 0.0)


def _until_first_result(batch: Batch) -> Bools:
    """bool[K]: True on the turns up to and with the first one of their trajectory that got a tool result."""
    early = np.ones(len(batch.turns), bool)
    seen: set[int] = set()
    for k, (turn, n) in enumerate(zip(batch.turns, batch.trajectory_of_turn.tolist(), strict=True)):
        early[k] = n not in seen
        if turn.observed:
            seen.add(n)
    return early


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowGRPO:
    """The final reward, group-normalised, on every turn; goes with the aggregation `traj-mean-turn-mean`.

    Source: Flow-GRPO, AgentFlow, arXiv 2510.05592. The released code takes mean and deviation over turns
    (`statistics: turns`), so that long trajectories weigh more; the paper takes them over trajectories.
    """

    group_centred: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    eps: float = 1e-6
    ddof: int = 1
    statistics: str = "trajectories"
    """trajectories (paper), turns (released code)"""

    def __post_init__(self) -> None:
        positive(eps=self.eps)
        if self.statistics not in ("trajectories", "turns"):
            raise ValueError(f"statistics is {self.statistics!r}; expected one of trajectories, turns")

    def per_turn(self, batch: Batch) -> Doubles:
        """f64[K]"""
        group, counts, owner = batch.group_of_trajectory, batch.trajectory_in_stats, batch.trajectory_of_turn
        if self.statistics == "turns":
            return group_normalised(batch.rewards[owner], group[owner], counts[owner], eps=self.eps, ddof=self.ddof)
        return group_normalised(batch.rewards, group, counts, eps=self.eps, ddof=self.ddof)[owner]

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        return on_turns(batch, self.per_turn(batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class GiGPO:
    """A = A_episode + omega A_step: a trajectory against its group, and a turn against turns taken in the same state.

    A_step compares discounted returns within the rows (turns) of a group that have the same anchor, what the policy was
    shown before the turn; a row alone in its state gives 0.
    Source: GiGPO, arXiv 2505.10978; verl-agent, gigpo/core_gigpo.py.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    gamma: float = 0.95
    omega: float = 1.0
    mode: str = "mean_norm"
    """mean_norm: no deviation; mean_std_norm: divided by the unbiased deviation + eps."""
    eps: float = 1e-6
    episode_rows: bool = True
    """Episode statistics over turns (the code's way: long trajectories weigh more); else over trajectories."""
    similarity: float | None = None
    """Anchors whose texts match by at least this much (difflib's ratio) count as one state; null: they are equal."""

    def __post_init__(self) -> None:
        positive(eps=self.eps)
        if self.mode not in ("mean_norm", "mean_std_norm"):
            raise ValueError(f"mode is {self.mode!r}; expected one of mean_norm, mean_std_norm")
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma is {self.gamma}; expected 0 to 1")

    def discounted(self, batch: Batch) -> Doubles:
        """f64[K]: returns from each turn on."""
        return discounted(batch.step_rewards, batch.trajectory_of_turn, self.gamma)

    def parts(self, batch: Batch) -> tuple[Doubles, Doubles]:
        """(A_episode f64[K], A_step f64[K])"""
        owner, eps = batch.trajectory_of_turn, self.eps if self.mode == "mean_std_norm" else None
        group, counts = batch.group_of_trajectory, batch.trajectory_in_stats
        if self.episode_rows:
            episode = group_normalised(batch.rewards[owner], group[owner], counts[owner], eps=eps)
        else:
            episode = group_normalised(batch.rewards, group, counts, eps=eps)[owner]
        return episode, group_normalised(self.discounted(batch), self.states(batch), counts[owner], eps=eps)

    def states(self, batch: Batch) -> Ints:
        """i32[K]: turns of one group that were taken in the same state have the same number."""
        known: defaultdict[int, dict[str, int]] = defaultdict(dict)
        out, count = np.zeros(len(batch.turns), np.int32), 0
        for k, (turn, n) in enumerate(zip(batch.turns, batch.trajectory_of_turn.tolist(), strict=True)):
            of_group = known[int(batch.group_of_trajectory[n])]
            found = self._known(turn.anchor, of_group)
            if found is None:
                found = of_group[turn.anchor] = count
                count += 1
            out[k] = found
        return out

    def metrics(self, batch: Batch) -> Mapping[str, float]:
        """How many states two turns or more were taken in."""
        return {"anchor_groups": float((np.bincount(self.states(batch)) > 1).sum())}

    def _known(self, anchor: str, states: dict[str, int]) -> int | None:
        if anchor in states or self.similarity is None:
            return states.get(anchor)
        near = (n for text, n in states.items() if SequenceMatcher(None, text, anchor).ratio() >= self.similarity)
        return next(near, None)

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        episode, step = self.parts(batch)
        return on_turns(batch, episode + self.omega * step)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnToGo:
    """A_{i,t} = G_{i,t} - mean over the group's other members j of G_{j,t}, with G_{j,t} = 0 once j has ended.

    G is the return from turn t on. The baseline takes every other member at every turn, so it depends neither on the
    member's own actions nor on who is still playing: the gradient is exactly that of the expected return (undiscounted,
    with each turn's log-probabilities summed). A mean over the members that reached turn t shrinks late turns' credit,
    and most where few reach them.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma is {self.gamma}; expected 0 to 1")

    def per_turn(self, batch: Batch) -> Doubles:
        """f64[K]"""
        returns = discounted(batch.step_rewards, batch.trajectory_of_turn, self.gamma)
        owner, place = batch.trajectory_of_turn, batch.turn_index
        table = np.zeros((batch.trajectories, int(place.max(initial=0)) + 1))
        table[owner, place] = returns
        counts, out = batch.trajectory_in_stats, np.zeros_like(returns)
        for k, (n, t) in enumerate(zip(owner.tolist(), place.tolist(), strict=True)):
            others = counts & (batch.group_of_trajectory == batch.group_of_trajectory[n]) & self.voters(batch, t)
            others[n] = False
            size = int(others.sum())
            out[k] = returns[k] - table[others, t].sum() / size if size else 0.0
        return out

    def voters(self, batch: Batch, turn: int) -> Bools:
        """bool[N]: whose return is in the baseline of that turn: everybody's, ended or not."""
        return np.ones(batch.trajectories, bool)

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        return on_turns(batch, self.per_turn(batch))
