"""Filters: which tokens train, which trajectories count, and why the others do not."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from agenthub.records import Finish
from agenthub.trainers.plugins import Credit, Filter, LeavesOut
from agenthub.trainers.types import Batch, Bools, Filtered, Reason, TurnFacts

__all__ = ["NoFilter", "SimpleTIR", "apply", "void_by_facts", "void_by_text", "void_trajectories"]

CODE = "(?s)```(?:py|python)?\\n(.*?)\\n```"
ANSWER = "\\boxed{"


def void_by_text(turn: TurnFacts, code: str = CODE, answer: str = ANSWER) -> bool:
    """The published predicate: neither a complete py, python or bare code block nor `\\boxed{` in the text.

    Source: SimpleTIR, recipe/simpletir/agent_utils.py, `execute_predictions`. A tool error is not void.
    """
    return answer not in turn.text and re.search(code, turn.text) is None


def void_by_facts(turn: TurnFacts) -> bool:
    """The same predicate over what the hub reports, for any protocol: neither a call nor an answer."""
    return turn.calls == 0 and not turn.answered


PREDICATES = ("facts", "text")


def void_trajectories(batch: Batch, predicate: str = "facts") -> Bools:
    """bool[N]: True where a turn of the trajectory is void."""
    void = np.zeros(batch.trajectories, bool)
    void[batch.trajectory_of_turn[SimpleTIR(predicate=predicate).void_turns(batch)]] = True
    return void


def apply(chosen: Filter, credit: Credit, batch: Batch) -> Filtered:
    """What a filter says, less the tokens that the credit estimator leaves out.

    A token that stands in several rows of a tree may train in one of them alone.
    """
    filtered = chosen.apply(batch)
    if not isinstance(credit, LeavesOut):
        return filtered
    for reason, tokens in credit.leaves_out(batch.with_filter(filtered)).items():
        touched = np.unique(batch.sample_of_token[filtered.in_loss & tokens]).tolist()
        reasons = dict.fromkeys(touched, reason) | dict(filtered.reasons)
        filtered = replace(filtered, in_loss=filtered.in_loss & ~tokens, reasons=reasons)
    return filtered


def _aborted(batch: Batch) -> Bools:
    """bool[N]: True where the engine gave up on a turn."""
    aborted = np.zeros(batch.trajectories, bool)
    aborted[batch.trajectory_of_turn[np.array([turn.finish is Finish.ABORT for turn in batch.turns], bool)]] = True
    return aborted


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFilter:
    """Every action token trains; only trajectories with an aborted turn are left out."""

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons."""
        aborted = _aborted(batch)
        return Filtered(
            in_loss=batch.action_mask & ~aborted[batch.trajectory_of_token],
            in_stats=~aborted[batch.trajectory_of_sample],
            keep_group=dict.fromkeys(batch.groups, True),
            reasons={int(s): Reason.ABORTED for s in np.flatnonzero(aborted[batch.trajectory_of_sample])},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleTIR:
    """Trajectories with a void turn leave the loss and stay in their group's statistics.

    Source: SimpleTIR, arXiv 2509.02479, and its code (recipe/simpletir). A void turn masks the whole trajectory, its
    good turns too. The group gate drops groups with too few members, no spread, or a mean outcome outside the gate.
    """

    predicate: str = "facts"
    """facts: neither call nor answer, as the hub reports them; text: the published patterns on the turn's text."""
    effect: str = "trajectory"
    """trajectory: the whole trajectory leaves the loss; turn: the void turns alone (a different method); none: nothing
    leaves for being void, for the arm of a comparison that has the gate alone."""
    code_pattern: str = CODE
    """Regular expression of a complete code block; of the predicate `text`."""
    answer_marker: str = ANSWER
    """What a final answer holds; of the predicate `text`."""
    void_in_stats: bool = True
    truncated: str = "keep"
    """keep; drop: truncated trajectories leave the loss and the statistics (`remove_clip`)."""
    min_n: int = 1
    """Least members in the statistics; published: 4."""
    std_min: float = 0.0
    """Least deviation (ddof 1) of the group's rewards; published: 1e-3."""
    acc_low: float = 0.0
    """Least mean outcome; published: 0.1."""
    acc_high: float = 1.0
    """Highest mean outcome; published: 0.9."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("predicate", self.predicate, PREDICATES),
            ("effect", self.effect, ["none", "trajectory", "turn"]),
            ("truncated", self.truncated, ["drop", "keep"]),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
        try:
            re.compile(self.code_pattern)
        except re.error as error:
            raise ValueError(f"code_pattern {self.code_pattern!r} is no regular expression: {error}") from error
        if not 0.0 <= self.acc_low <= self.acc_high <= 1.0:
            raise ValueError(f"acc_low {self.acc_low} and acc_high {self.acc_high} must rise within 0 to 1")

    def void_turns(self, batch: Batch) -> Bools:
        """bool[K]: turns that are void; by `text`, none after an answer, which ended the published rollout.

        That rollout cut a turn's text after its first complete code block, so that an answer there was none.
        """
        if self.predicate == "facts":
            return np.array([void_by_facts(turn) for turn in batch.turns], bool)
        ended: set[int] = set()
        void = np.zeros(len(batch.turns), bool)
        for k, (turn, n) in enumerate(zip(batch.turns, batch.trajectory_of_turn.tolist(), strict=True)):
            void[k] = n not in ended and void_by_text(turn, self.code_pattern, self.answer_marker)
            code = re.search(self.code_pattern, turn.text)
            if self.answer_marker in turn.text[: code.end() if code else None]:
                ended.add(n)
        return void

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons; a group that the gate drops leaves the loss as a whole."""
        void_turns = self.void_turns(batch) & (self.effect != "none")
        void = np.zeros(batch.trajectories, bool)
        void[batch.trajectory_of_turn[void_turns]] = True
        aborted = _aborted(batch)
        cut = batch.truncated & (self.truncated == "drop")
        in_stats = ~aborted & ~cut & (self.void_in_stats | ~void)
        gate = self._gate(batch, in_stats)
        gated = np.array([reason is not None for reason in gate], bool)[batch.group_of_trajectory]
        out = aborted | cut | gated | (void if self.effect == "trajectory" else False)
        in_loss = batch.action_mask & ~out[batch.trajectory_of_token]
        if self.effect == "turn":
            in_loss &= ~void_turns[batch.turn_of_token]
        reasons: dict[int, Reason] = {}
        for sample, n in enumerate(batch.trajectory_of_sample.tolist()):
            reason = gate[int(batch.group_of_trajectory[n])]
            found = Reason.VOID if void[n] else reason
            found = Reason.TRUNCATED if cut[n] else found
            found = Reason.ABORTED if aborted[n] else found
            if found is not None:
                reasons[sample] = found
        return Filtered(
            in_loss=in_loss,
            in_stats=in_stats[batch.trajectory_of_sample],
            keep_group={name: reason is None for name, reason in zip(batch.groups, gate, strict=True)},
            reasons=reasons,
        )

    def _gate(self, batch: Batch, in_stats: Bools) -> list[Reason | None]:
        """By group, why it is dropped; None where it is kept."""
        return [self._gate_one(batch, in_stats & (batch.group_of_trajectory == g)) for g in range(len(batch.groups))]

    def _gate_one(self, batch: Batch, members: Bools) -> Reason | None:
        rewards, outcomes = batch.rewards[members], batch.outcomes[members]
        if rewards.size < self.min_n:
            return Reason.TOO_FEW
        spread = float(rewards.std(ddof=1)) if rewards.size > 1 else 0.0
        if spread < self.std_min:
            return Reason.NO_SPREAD
        accuracy = float(outcomes.mean()) if outcomes.size else 0.0
        if accuracy < self.acc_low:
            return Reason.TOO_HARD
        return Reason.TOO_EASY if accuracy > self.acc_high else None
