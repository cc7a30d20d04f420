"""The trainer's records: a Sample per token run, a Batch of flat tokens, and what each stage adds to it.

Axes legend, for names and docstrings throughout `trainers`:
    T tokens of the batch, one after the other, without padding     S samples (token runs)
    K turns of the batch, one after the other                       N trajectories
    G members of one group                                          B, L rows and columns of a padded view

Numpy only. Padding is a view that `view` makes at the model's door.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from agenthub.records import Finish, Floats, Ints, frozen

__all__ = ["Batch", "Bools", "Doubles", "Filtered", "Reason", "Sample", "TurnFacts"]

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]


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
        """bool[N]: True where every sample of the trajectory counts; a trajectory without samples does not."""
        counts = np.zeros(self.trajectories, bool)
        counts[self.trajectory_of_sample] = True
        counts[self.trajectory_of_sample[~self.in_stats]] = False
        return counts

    def with_filter(self, filtered: Filtered) -> Batch:
        """The same batch with the filter's masks; tokens that are no action tokens never enter the loss."""
        return replace(
            self,
            in_loss=filtered.in_loss & self.action_mask,
            in_stats=filtered.in_stats,
            keep_group=frozen(filtered.keep_group),
        )

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
