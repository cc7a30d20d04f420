"""The trainer's records: a Sample per token run, a Batch of flat tokens, and what each stage adds to it.

Axes legend, for names and docstrings throughout `trainers`:
    T tokens of the batch, one after the other, without padding     S samples (token runs)
    K turns of the batch, one after the other                       N trajectories
    G members of one group                                          B, L rows and columns of a padded view

Numpy only. Padding is a view that `view` makes at the model's door.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agenthub.records import Finish, Floats, Ints, frozen

__all__ = [
    "EXECUTED",
    "EXPERT",
    "REFINED",
    "Batch",
    "Bools",
    "Doubles",
    "Filtered",
    "Reason",
    "Sample",
    "Scores",
    "TurnFacts",
]

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]

EXPERT = "expert"
"""Name of the policy behind trajectories that were recorded elsewhere and are imitated."""
REFINED = "refined"
"""Name of the policy behind answers that it rewrote after a critique; off its own distribution."""


EXECUTED = "executed"
"""Reward component of a suffix that was grown from a failed call: its own call executed. No episode's outcome."""


class Reason(StrEnum):
    """Why a filter touched a sample; counted in every update's metrics."""

    VOID = "void"
    """A turn of the trajectory is void under the filter's predicate."""
    TRUNCATED = "truncated"
    """A limit from outside the task ended the episode."""
    ABORTED = "aborted"
    """The engine gave up on a turn, so the trajectory is not the policy's doing."""
    TOO_FEW = "too_few_members"
    """The group has too few members that count."""
    NO_SPREAD = "no_spread"
    """The group's rewards are all but equal."""
    TOO_HARD = "too_hard"
    """The group's mean outcome is below the gate."""
    TOO_EASY = "too_easy"
    """The group's mean outcome is above the gate."""
    NO_CALL = "no_call"
    """No turn of the trajectory calls a tool."""
    CALLS_FAILED = "all_calls_failed"
    """Every call of the trajectory failed."""
    EXECUTION_FAILED = "execution_failed"
    """A call of the trajectory failed."""
    PREFIX = "forked_prefix"
    """Turns before the fork belong to the trajectory that was forked."""
    VALUE = "value_only"
    """The trajectory was forked to measure a state's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One token run: the turns of a trajectory in which each prompt extends prompt and ids of the one before."""

    ids: Ints
    """i32[L]: prompt, action, observation, action, ...; ends with the last action token."""
    action_mask: Bools
    """bool[L]: True on tokens that the policy sampled."""
    turn_of_token: Ints
    """i32[L]: index of the turn within its trajectory that sampled the token, or in whose prompt it first stood."""
    logprobs: Floats
    """f32[L]: as the policy reported them; 0 where `action_mask` is False."""
    versions: Ints
    """i32[L]: weight version that sampled the token; -1 where `action_mask` is False."""
    trajectory: int
    """Index of the trajectory in the batch."""
    group: str
    policy: str
    """Name of the policy whose turns these are."""
    entropies: Doubles | None = None
    """f64[L]: 0 where `action_mask` is False; None where the policy does not tell them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFacts:
    """What a filter may know of a turn; reported facts only, no judgement."""

    text: str
    calls: int
    answered: bool
    parse_error: bool
    failed_calls: int
    """Calls whose observation says failed."""
    observed: bool
    """The turn got a tool's result (not a mere notice of the hub)."""
    finish: Finish
    anchor: str = ""
    """What the policy was shown before this turn; GiGPO takes equal ones for equal states of the world."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What is known of each token beyond its log-probability, all [T]; None where no plug-in needs it."""

    entropies: NDArray[Any] | None = None
    """Of the sampling distribution, nats, as the policy told them."""
    ref_logprobs: NDArray[Any] | None = None
    """Under the frozen reference model."""
    teacher_logprobs: NDArray[Any] | None = None
    sum_pi_sq: NDArray[Any] | None = None
    """Sum over the vocabulary of squared probabilities, from the forward pass that gave `old_logprobs`."""
    values: NDArray[Any] | None = None
    """The critic's expected return-to-go before the token."""
    ref_logsumexp: NDArray[Any] | None = None
    """Logsumexp of the reference model's logits before the token."""

    def take(self, tokens: NDArray[np.intp]) -> Scores:
        """The scores of these tokens."""
        rows = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        return Scores(**{name: row if row is None else row[tokens] for name, row in rows.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """What a filter says of a batch."""

    in_loss: Bools
    """bool[T]: tokens that the loss sees; a subset of the action tokens."""
    in_stats: Bools
    """bool[S]: samples whose trajectory counts in its group's mean and deviation."""
    keep_group: Mapping[str, bool]
    reasons: Mapping[int, Reason]
    """By sample, for each sample that left the loss or the statistics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The samples of one update as flat tokens, and what is known of their turns and trajectories."""

    ids: Ints
    """i32[T]"""
    action_mask: Bools
    """bool[T]"""
    sample_of_token: Ints
    """i32[T], rising"""
    turn_of_token: Ints
    """i32[T]: index into the K turns."""
    logprobs: Floats
    """f32[T]: of the rollout; 0 off the action tokens."""
    versions: Ints
    """i32[T]: -1 off the action tokens."""
    trajectory_of_sample: Ints
    """i32[S]"""
    policy_of_sample: tuple[str, ...]
    """[S]"""
    trajectory_of_turn: Ints
    """i32[K]"""
    turns: tuple[TurnFacts, ...]
    """[K]"""
    turn_rewards: Doubles
    """f64[K]: the turn's components but the outcome."""
    groups: tuple[str, ...]
    """Group names; `group_of_trajectory` points here."""
    group_of_trajectory: Ints
    """i32[N]"""
    rewards: Doubles
    """f64[N]: all components."""
    outcomes: Doubles
    """f64[N]: the outcome component alone."""
    truncated: Bools
    """bool[N]"""
    in_loss: Bools
    """bool[T]: the action tokens, less what a filter took out."""
    in_stats: Bools
    """bool[S]: all True until a filter has spoken."""
    old_logprobs: Floats
    """f32[T]: under the weights that the update starts from; the rollout's until the learner recomputes them."""
    tasks: tuple[str, ...]
    """[N]"""
    roles: tuple[str, ...]
    """[N]: what the policy played in the task, from its metadata; empty where the task says nothing."""
    fork_turn: Ints
    """i32[N]: turns that the trajectory shares with the one it was forked from; -1 where it was not forked."""
    parent: Ints
    """i32[N]: the trajectory that it was forked from; -1 where there is none or it is not in the batch."""
    peers: Ints
    """i32[N]: members of the trajectory's group that count in its statistics."""
    peers_solved: Ints
    """i32[N]: how many of them have the full outcome."""
    scores: Scores = Scores()
    advantages: Doubles | None = None
    """f64[T]; None until credit has been given."""
    keep_group: Mapping[str, bool] = field(default_factory=frozen)
    """Empty until a filter has spoken."""

    @property
    def tokens(self) -> int:
        """T"""
        return int(self.ids.shape[0])

    @property
    def samples(self) -> int:
        """S"""
        return int(self.trajectory_of_sample.shape[0])

    @property
    def trajectories(self) -> int:
        """N"""
        return int(self.rewards.shape[0])

    @property
    def trajectory_of_token(self) -> Ints:
        """i32[T]"""
        return self.trajectory_of_sample[self.sample_of_token]

    @property
    def trajectory_in_stats(self) -> Bools:
        """bool[N]: True where every sample of the trajectory counts; one without samples, or an expert's, does not."""
        counts = np.zeros(self.trajectories, bool)
        counts[self.trajectory_of_sample] = True
        counts[self.trajectory_of_sample[~self.in_stats]] = False
        return counts & ~self.by(EXPERT)

    @property
    def solved(self) -> Bools:
        """bool[N]: the outcome is full."""
        return self.outcomes >= 1.0 - 1e-6

    @property
    def step_rewards(self) -> Doubles:
        """f64[K]: the turn's own components, and the outcome at the trajectory's last turn."""
        rewards = self.turn_rewards.copy()
        np.add.at(rewards, self.last_turn[self.last_turn >= 0], self.outcomes[self.last_turn >= 0])
        return rewards

    @property
    def last_turn(self) -> NDArray[np.intp]:
        """i64[N]: index of the trajectory's last turn; -1 where it has none."""
        last = np.full(self.trajectories, -1, np.intp)
        last[self.trajectory_of_turn] = np.arange(self.trajectory_of_turn.shape[0])
        return last

    @property
    def turn_index(self) -> Ints:
        """i32[K]: the turn's place within its trajectory, from 0."""
        counts = np.bincount(self.trajectory_of_turn, minlength=self.trajectories)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place: Ints = (np.arange(self.trajectory_of_turn.shape[0]) - first[self.trajectory_of_turn]).astype(np.int32)
        return place

    def by(self, policy: str) -> Bools:
        """bool[N]: True where the policy of that name played in the trajectory."""
        rows = np.array([name == policy for name in self.policy_of_sample], bool)
        return np.isin(np.arange(self.trajectories), self.trajectory_of_sample[rows])

    def tokens_by(self, policy: str) -> Bools:
        """bool[T]: action tokens of the policy of that name."""
        rows = np.array([name == policy for name in self.policy_of_sample], bool)
        return self.action_mask & rows[self.sample_of_token] if rows.size else self.action_mask

    def with_filter(self, filtered: Filtered) -> Batch:
        """The same batch with the filter's masks; tokens that are no action tokens never enter the loss."""
        batch = replace(
            self,
            in_loss=filtered.in_loss & self.action_mask,
            in_stats=filtered.in_stats,
            keep_group=frozen(filtered.keep_group),
        )
        return batch.with_peers()

    def with_peers(self) -> Batch:
        """The same batch with `peers` and `peers_solved` counted from who is in the statistics."""
        counts, group = self.trajectory_in_stats, self.group_of_trajectory
        peers = np.bincount(group[counts], minlength=len(self.groups))
        solved = np.bincount(group[counts & self.solved], minlength=len(self.groups))
        return replace(self, peers=peers[group].astype(np.int32), peers_solved=solved[group].astype(np.int32))

    def select(self, trajectories: Ints) -> Batch:
        """The batch of these trajectories alone, in this order; group names stay as they are."""
        samples = _rows_of(self.trajectory_of_sample, trajectories)
        turns = _rows_of(self.trajectory_of_turn, trajectories)
        tokens = _rows_of(self.sample_of_token, samples.astype(np.int32))
        return replace(
            self,
            ids=self.ids[tokens],
            action_mask=self.action_mask[tokens],
            sample_of_token=_renumbered(self.sample_of_token[tokens], samples),
            turn_of_token=_renumbered(self.turn_of_token[tokens], turns),
            logprobs=self.logprobs[tokens],
            versions=self.versions[tokens],
            trajectory_of_sample=_renumbered(self.trajectory_of_sample[samples], trajectories),
            policy_of_sample=tuple(self.policy_of_sample[s] for s in samples),
            trajectory_of_turn=_renumbered(self.trajectory_of_turn[turns], trajectories),
            turns=tuple(self.turns[k] for k in turns),
            turn_rewards=self.turn_rewards[turns],
            group_of_trajectory=self.group_of_trajectory[trajectories],
            rewards=self.rewards[trajectories],
            outcomes=self.outcomes[trajectories],
            truncated=self.truncated[trajectories],
            in_loss=self.in_loss[tokens],
            in_stats=self.in_stats[samples],
            old_logprobs=self.old_logprobs[tokens],
            tasks=tuple(self.tasks[n] for n in trajectories),
            roles=tuple(self.roles[n] for n in trajectories),
            fork_turn=self.fork_turn[trajectories],
            parent=_renumbered_or_none(self.parent[trajectories], trajectories, self.trajectories),
            peers=self.peers[trajectories],
            peers_solved=self.peers_solved[trajectories],
            scores=self.scores.take(tokens),
            advantages=None if self.advantages is None else self.advantages[tokens],
        )


def _rows_of(owner: Ints, owners: Ints) -> NDArray[np.intp]:
    """Rows whose owner is in `owners`, in the order of `owners` and then of the rows."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], owners, side="left")
    ends = np.searchsorted(owner[order], owners, side="right")
    return np.concatenate([order[a:b] for a, b in zip(starts, ends, strict=True)] or [np.empty(0, np.intp)])


def _renumbered(values: Ints, kept: NDArray[np.intp] | Ints) -> Ints:
    """`values` as positions within `kept`, which holds every one of them."""
    if not len(kept):
        return values.astype(np.int32)
    place = np.full(int(np.max(kept)) + 1, -1, np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    return place[values]


def _renumbered_or_none(values: Ints, kept: Ints, size: int) -> Ints:
    """`values` as positions within `kept`; -1 where a value is not among them."""
    place = np.full(size + 1, -1, np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    place[size] = -1
    return place[np.where(values < 0, size, values)]
