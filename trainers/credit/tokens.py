"""Credit for tokens: baselines and teachers that speak of each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agenthub.records import Ints
from agenthub.trainers.credit.group import positive
from agenthub.trainers.credit.turns import on_turns
from agenthub.trainers.types import Batch, Bools, Doubles

__all__ = ["GAE", "GOPD", "OPD", "OTB", "MultiTurnOTB", "known", "token_rewards"]


def known(row: NDArray[Any] | None, who: str, what: str) -> Doubles:
    """The row in f64.

    Raises:
        ValueError: it is None.
    """
    if row is None:
        raise ValueError(f"{who} needs {what}")
    return np.asarray(row, np.float64)


def token_rewards(batch: Batch) -> Doubles:
    """f64[T]: each turn's reward at its last action token.

    What a turn without action tokens earned stands at the last action token before it in its trajectory.
    """
    out = np.zeros(batch.tokens)
    last = np.full(len(batch.turns), -1, np.intp)
    places = np.flatnonzero(batch.action_mask)
    last[batch.turn_of_token[places]] = places
    for k, reward in enumerate(batch.step_rewards.tolist()):
        while last[k] < 0 and k > 0 and batch.trajectory_of_turn[k - 1] == batch.trajectory_of_turn[k]:
            k -= 1
        if last[k] >= 0:
            out[last[k]] += reward
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class OTB:
    """A_t = G_t - B_t, B_t = sum_i G_{i,t} W_{i,t} / (sum_i W_{i,t} + eps) over the group at position t.

    W is the running sum of w_t = 1 - 2 pi_t + sum_v pi_v^2, the squared norm of the token's logit gradient, times
    min(rho, tis_cap)^2 beside a correction. G is the undiscounted return-to-go. A position counts all tokens from the
    trajectory's first action token on. Beyond the second-longest member the longest one has B = 0
    (`handle_zero_tail`); a group of one has B = 0.
    Source: arXiv 2602.07078; verl `compute_optimal_token_baseline_advantage`.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"sum_pi_sq"})
    eps: float = 1e-8
    handle_zero_tail: bool = True
    tis_cap: float | None = None
    """That of the correction `tis` at the level of tokens, where the recipe has it."""
    compact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive(eps=self.eps)

    def parts(self, batch: Batch) -> dict[str, Doubles]:
        """By name, each f64[T]: `w`, its running sum `W_cum`, `returns` and `advantages`."""
        mask = batch.action_mask
        pi = np.exp(np.asarray(batch.old_logprobs, np.float64))
        w = 1.0 - 2.0 * pi + known(batch.scores.sum_pi_sq, "otb", "the sum of squared probabilities")
        if self.tis_cap is not None:
            gap = np.clip(np.asarray(batch.old_logprobs, np.float64) - batch.logprobs, -20.0, 20.0)
            w = w * np.minimum(np.exp(gap), self.tis_cap) ** 2
        owner = batch.trajectory_of_token
        order = np.argsort(owner, kind="stable")
        W, G = np.zeros(batch.tokens), np.zeros(batch.tokens)
        rewards = token_rewards(batch)
        for n in range(batch.trajectories):
            mine = order[np.searchsorted(owner[order], n) : np.searchsorted(owner[order], n, side="right")]
            W[mine] = np.cumsum(np.where(mask[mine], w[mine], 0.0))
            G[mine] = np.cumsum(rewards[mine][::-1])[::-1]
        W *= mask
        return {"w": w, "W_cum": W, "returns": G, "advantages": (G - self._baseline(batch, G, W)) * mask}

    def _baseline(self, batch: Batch, G: Doubles, W: Doubles) -> Doubles:
        """f64[T]"""
        mask, place = batch.action_mask, _positions(batch, compact=self.compact)
        B = np.zeros(batch.tokens)
        lengths = np.bincount(batch.trajectory_of_token[mask], minlength=batch.trajectories)
        counts = batch.trajectory_in_stats
        for g in range(len(batch.groups)):
            members = np.flatnonzero((batch.group_of_trajectory == g) & counts)
            if members.size < 2:
                continue
            in_group = (batch.group_of_trajectory[batch.trajectory_of_token] == g) & mask
            voters = in_group & counts[batch.trajectory_of_token]
            top = np.bincount(place[voters], (G * W)[voters], minlength=int(place[in_group].max(initial=0)) + 1)
            bottom = np.bincount(place[voters], W[voters], minlength=top.size) + self.eps
            B[in_group] = (top / bottom)[place[in_group]]
            ranked = members[np.argsort(lengths[members], kind="stable")]
            longest, second = ranked[-1], lengths[ranked[-2]]
            if self.handle_zero_tail and lengths[longest] > second:
                B[(batch.trajectory_of_token == longest) & (place >= second)] = 0.0
        return B

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        return self.parts(batch)["advantages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTurnOTB(OTB):
    """The optimal token baseline where positions count action tokens alone, so that turns line up between members.

    Source: arXiv 2602.07078; verl `compute_multi_turn_optimal_token_baseline_advantage`.
    """

    compact: ClassVar[bool] = True


def _positions(batch: Batch, *, compact: bool) -> NDArray[np.intp]:
    """i64[T]: place of the token within its trajectory from its first action token on; of action tokens if compact."""
    owner = batch.trajectory_of_token
    order = np.argsort(owner, kind="stable")
    out = np.zeros(batch.tokens, np.intp)
    for n in range(batch.trajectories):
        mine = order[np.searchsorted(owner[order], n) : np.searchsorted(owner[order], n, side="right")]
        acts = batch.action_mask[mine]
        if acts.any():
            out[mine] = np.cumsum(acts) - 1 if compact else np.arange(mine.size) - int(np.argmax(acts))
    return np.maximum(out, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GAE:
    """A_t = sum_l (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t, over the action tokens or the turns.

    Observation tokens are no steps. At the turn level V is the value before the turn's first action token, and all of a
    turn's tokens share its advantage. A truncated trajectory is treated as an ended one.
    Source: arXiv 1506.02438, eq. 16; PPO-max (arXiv 2307.04964) for gamma 1, lam 0.95 and the normalisation.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    gamma: float = 1.0
    lam: float = 0.95
    level: str = "token"
    """token, turn"""
    normalise: bool = True
    """Mean 0 and deviation 1 over the batch's action tokens that count."""
    eps: float = 1e-8

    def __post_init__(self) -> None:
        positive(eps=self.eps)
        if self.level not in ("token", "turn"):
            raise ValueError(f"level is {self.level!r}; expected one of token, turn")
        if not (0.0 <= self.gamma <= 1.0 and 0.0 <= self.lam <= 1.0):
            raise ValueError(f"gamma {self.gamma} and lam {self.lam} must be in 0 to 1")

    def returns(self, batch: Batch) -> Doubles:
        """f64[T]: A + V, what the critic learns."""
        return self.raw(batch)[1]

    def raw(self, batch: Batch) -> tuple[Doubles, Doubles]:
        """(advantages before normalisation f64[T], returns f64[T])"""
        values = known(batch.scores.values, "gae", "a critic")
        places = np.flatnonzero(batch.action_mask)
        if self.level == "turn":
            return self._by_turn(batch, values, places)
        owner = batch.trajectory_of_token[places]
        a = self._scan(token_rewards(batch)[places], values[places], owner)
        advantages, returns = np.zeros(batch.tokens), np.zeros(batch.tokens)
        advantages[places], returns[places] = a, a + values[places]
        return advantages, returns

    def _by_turn(self, batch: Batch, values: Doubles, places: NDArray[np.intp]) -> tuple[Doubles, Doubles]:
        turns, first = np.unique(batch.turn_of_token[places], return_index=True)
        before = values[places[first]]
        a = self._scan(batch.step_rewards[turns], before, batch.trajectory_of_turn[turns])
        per_turn, target = np.zeros(len(batch.turns)), np.zeros(len(batch.turns))
        per_turn[turns], target[turns] = a, a + before
        return on_turns(batch, per_turn), on_turns(batch, target)

    def _scan(self, rewards: Doubles, values: Doubles, owner: Ints) -> Doubles:
        out, later = np.zeros_like(values), 0.0
        for k in range(values.size - 1, -1, -1):
            goes_on = k + 1 < values.size and owner[k + 1] == owner[k]
            ahead = values[k + 1] if goes_on else 0.0
            later = rewards[k] + self.gamma * ahead - values[k] + (self.gamma * self.lam * later if goes_on else 0.0)
            out[k] = later
        return out

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        advantages, _ = self.raw(batch)
        counted: Bools = batch.action_mask & batch.trajectory_in_stats[batch.trajectory_of_token]
        if self.normalise and counted.any():
            spread = float(advantages[counted].std())
            advantages = (advantages - advantages[counted].mean()) / (spread + self.eps)
        return np.where(batch.action_mask, advantages, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OPD:
    """A_t = lp_teacher - lp_old: on-policy distillation, the reverse KL to the teacher token by token; no reward.

    Source: arXiv 2306.13649; as in RUCBM/G-OPD with lambda 1.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        teacher = known(batch.scores.teacher_logprobs, "opd", "a teacher")
        return np.where(batch.action_mask, teacher - np.asarray(batch.old_logprobs, np.float64), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GOPD:
    """A_t = -[(lp_old - lp_ref) - lam (lp_teacher - lp_ref)]; lam 1 is plain OPD, more goes past the teacher.

    Source: G-OPD, RUCBM/G-OPD, dp_actor.py.
    """

    group_centred: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"ref", "teacher"})
    lam: float = 1.25

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]"""
        ref = known(batch.scores.ref_logprobs, "g_opd", "a reference model")
        teacher = known(batch.scores.teacher_logprobs, "g_opd", "a teacher")
        student = np.asarray(batch.old_logprobs, np.float64)
        return np.where(batch.action_mask, -((student - ref) - self.lam * (teacher - ref)), 0.0)
