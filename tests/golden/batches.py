"""Batches written out by hand, token by token, in f64, so that plug-ins can be held against published numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agenthub.records import Finish
from agenthub.trainers.types import Batch, Scores, TurnFacts

__all__ = ["Row", "flat"]

Values = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trajectory of one sample; everything has a length of `mask`, or of the turns."""

    mask: Sequence[int] = (1,)
    """1 on action tokens."""
    turn: Sequence[int] = ()
    """Index of each token's turn; empty for a single one."""
    reward: float = 0.0
    outcome: float | None = None
    """Equal to the reward where it is None."""
    group: Hashable = 0
    texts: Sequence[str] = ()
    turn_rewards: Values = ()
    anchors: Sequence[str] = ()
    observed: Sequence[bool] = ()
    failed: Sequence[int] = ()
    """Failed calls of each turn; each has one call more than fails."""
    old: Values = ()
    rollout: Values = ()
    truncated: bool = False
    policy: str = "policy"
    fork_turn: int = -1
    parent: int = -1
    scores: dict[str, Values] = field(default_factory=dict)

    @property
    def turns(self) -> int:
        sizes = (len(self.texts), len(self.turn_rewards), len(self.anchors), len(self.observed), len(self.failed), 1)
        return max(*sizes, max(self.turn, default=0) + 1)

    def facts(self, t: int) -> TurnFacts:
        text = self.texts[t] if self.texts else ""
        failed = self.failed[t] if self.failed else 0
        return TurnFacts(
            text=text,
            calls=failed + ("```" in text or bool(self.failed)),
            answered="\\boxed{" in text,
            parse_error=False,
            failed_calls=failed,
            observed=bool(self.observed[t]) if self.observed else False,
            finish=Finish.STOP,
            anchor=self.anchors[t] if self.anchors else "",
        )


def flat(rows: Sequence[Row]) -> Batch:
    """The batch of these trajectories."""
    names = tuple(dict.fromkeys(str(row.group) for row in rows))
    first = np.cumsum([0, *(row.turns for row in rows)])
    sizes = [len(row.mask) for row in rows]

    def tokens(name: str, fill: float = 0.0) -> np.ndarray[Any, Any]:
        return np.concatenate([_filled(getattr(row, name), len(row.mask), fill) for row in rows])

    mask = tokens("mask").astype(bool)
    old, rewards = tokens("old"), np.array([row.reward for row in rows], np.float64)
    known = sorted({name for row in rows for name in row.scores})
    scores = {
        name: np.concatenate([_filled(row.scores.get(name, ()), len(row.mask), 0.0) for row in rows]) for name in known
    }
    turn_of_token = [first[n] + np.asarray(row.turn or [0] * len(row.mask), np.int32) for n, row in enumerate(rows)]
    batch = Batch(
        ids=np.ones(sum(sizes), np.int32),
        action_mask=mask,
        sample_of_token=np.repeat(np.arange(len(rows), dtype=np.int32), sizes),
        turn_of_token=np.concatenate(turn_of_token).astype(np.int32),
        logprobs=tokens("rollout") if any(len(row.rollout) for row in rows) else old,
        versions=np.where(mask, 0, -1).astype(np.int32),
        trajectory_of_sample=np.arange(len(rows), dtype=np.int32),
        policy_of_sample=tuple(row.policy for row in rows),
        trajectory_of_turn=np.repeat(np.arange(len(rows), dtype=np.int32), [row.turns for row in rows]),
        turns=tuple(row.facts(t) for row in rows for t in range(row.turns)),
        turn_rewards=np.concatenate([_filled(row.turn_rewards, row.turns, 0.0) for row in rows]),
        groups=names,
        group_of_trajectory=np.array([names.index(str(row.group)) for row in rows], np.int32),
        rewards=rewards,
        outcomes=np.array([row.reward if row.outcome is None else row.outcome for row in rows], np.float64),
        truncated=np.array([row.truncated for row in rows], bool),
        in_loss=mask,
        in_stats=np.ones(len(rows), bool),
        old_logprobs=old,
        tasks=tuple(f"suite/{row.group}" for row in rows),
        roles=("",) * len(rows),
        fork_turn=np.array([row.fork_turn for row in rows], np.int32),
        parent=np.array([row.parent for row in rows], np.int32),
        peers=np.zeros(len(rows), np.int32),
        peers_solved=np.zeros(len(rows), np.int32),
        scores=replace(Scores(), **scores),
    )
    return batch.with_peers()


def _filled(values: Sequence[float], size: int, fill: float) -> np.ndarray[Any, Any]:
    return np.asarray(values, np.float64) if len(values) else np.full(size, fill)
