"""A member being played, its group, and the trajectory that it leaves: the hub's facts with this side's tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agenthub.client import EpisodeHandle
from agenthub.codec import decode
from agenthub.records import (
    Call,
    Finish,
    Generation,
    Ints,
    Observation,
    Outcome,
    Stop,
    Trajectory,
    Turn,
    frozen,
    ints,
)
from agenthub.rollout.growth import Growth
from agenthub.rollout.types import Play, Start
from agenthub.wire import StepDone

__all__ = ["Group", "Lead", "Seat", "blank", "cut", "trajectory", "turn", "unplayed"]


@dataclass(frozen=True, slots=True)
class Lead:
    """A refined attempt is sampled after one context and recorded after another, the task's own."""

    size: int
    """Tokens of the context that the policy sees before the attempt."""
    own: Ints
    """The task's own prompt."""
    policy: str
    """Name under which the tokens are recorded."""


@dataclass(slots=True, eq=False)
class Seat:
    """One member being played."""

    play: Play
    start: Start
    handle: EpisodeHandle
    prompt: list[int]
    """The context of the turn that comes next, without its guide."""
    max_tokens: int
    turns: list[Turn]
    contexts: list[int] = field(default_factory=list)
    """Tokens of each turn's context, without its guide."""
    parent: str | None = None
    """`group[member]` that it was forked from."""
    lead: Lead | None = None
    last: StepDone | None = None
    lost: str | None = None
    """Why our side lost the episode before it could end; None while it has not."""

    @property
    def member(self) -> int:
        """Number within the group."""
        return self.start.member

    @property
    def guide(self) -> Ints:
        """Tokens that begin the next turn; mostly none."""
        place = len(self.turns) - self.start.turn
        return self.start.guide[place] if place < len(self.start.guide) else ints([])

    @property
    def ended(self) -> bool:
        """Nothing more is played of it."""
        cut_short = self.start.component is not None and len(self.turns) > self.start.turn
        return self.lost is not None or cut_short or self.over

    @property
    def over(self) -> bool:
        """The hub's episode has ended."""
        return self.last is not None and (self.last.terminated or self.last.truncated)

    def before(self, turn: int) -> list[int] | None:
        """The context of a turn that was or is about to be played; None where it did not get so far."""
        if turn == len(self.turns) and not self.ended:
            return list(self.prompt)
        if turn >= len(self.turns):
            return None
        generation = self.turns[turn].generation
        assert generation is not None  # every turn of a seat was made from one
        return [int(one) for one in generation.prompt_ids[: self.contexts[turn]]]

    def recorded(self, generation: Generation) -> Generation:
        """The generation as the trajectory keeps it."""
        if self.lead is None:
            return generation
        prompt = [*self.lead.own.tolist(), *generation.prompt_ids[self.lead.size :].tolist()]
        return replace(generation, prompt_ids=ints(prompt), policy=self.lead.policy)


@dataclass(slots=True, eq=False)
class Group:
    """One group being played."""

    play: Play
    growth: Growth
    seats: dict[int, Seat] = field(default_factory=dict)
    """By member, the last one that was opened."""
    ended: dict[int, Trajectory] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    """By member, how often our side lost it."""
    asked: set[tuple[int, int]] = field(default_factory=set)
    """(member, turn) whose copies have been asked for; a member that is played again gets no second ones."""


def cut(generation: Generation, kept: int) -> Generation:
    """The generation cut to its first `kept` tokens, with the number of those dropped."""
    size = generation.ids.size
    if kept >= size:
        return generation
    ids, logprobs = generation.ids[:kept], generation.logprobs[:kept]
    return replace(
        generation,
        ids=ids,
        logprobs=logprobs,
        entropies=None if generation.entropies is None else generation.entropies[:kept],
        versions=tuple(pair for pair in generation.versions if pair[0] < max(kept, 1)) if kept else (),
        dropped=generation.dropped + size - kept,
        finish=Finish.STOP,
    )


def turn(generation: Generation, done: StepDone) -> Turn:
    """A turn from its tokens and what the hub answered."""
    return Turn(
        index=done.turn,
        generation=generation,
        text=done.info["text"],
        calls=tuple(decode(Call, row) for row in done.info["calls"]),
        answer=done.info["answer"],
        parse_error=done.info["parse_error"],
        observations=tuple(decode(Observation, row) for row in done.observation["observations"]),
        rewards=frozen(done.rewards),
    )


def blank(observation: Observation) -> Observation:
    """The observation without what it shows."""
    return replace(observation, parts=())


def unplayed(play: Play, member: int, reason: str) -> Trajectory:
    """What stands for a member of a broken task."""
    return Trajectory(
        task=f"{play.suite}/{play.task}",
        group=play.group,
        member=member,
        turns=(),
        stop=Stop.CANCELLED,
        outcome=Outcome.ENV_FAULT,
        rewards=frozen(),
        reward=None,
        reason=reason,
    )


def trajectory(seat: Seat) -> Trajectory:
    """The trajectory of a seat that has ended."""
    last = seat.last
    assert last is not None  # every seat has been stepped until it ended
    executed = seat.start.component is not None
    turns = _executed(seat) if executed else tuple(seat.turns)
    totals: dict[str, float] = {}
    for one in turns:
        for name, value in one.rewards.items():
            totals[name] = totals.get(name, 0.0) + value
    # One call was all that was asked of it: it ended because that was made.
    stop, outcome = (
        (Stop.ANSWERED, Outcome.OK) if executed else (Stop(last.info["stop"]), Outcome(last.info["outcome"]))
    )
    scored = executed or last.reward is not None
    facts = dict(seat.handle.info.get("metadata", {}))
    guided = sum(int(ids.size) for ids in seat.start.guide)
    played = {"guide_tokens": guided, "horizon": seat.play.max_turns}
    return Trajectory(
        task=f"{seat.play.suite}/{seat.play.task}",
        group=seat.play.group,
        member=seat.member,
        turns=turns,
        stop=stop,
        outcome=outcome,
        rewards=frozen(totals),
        reward=float(sum(one.reward for one in turns)) if scored else None,
        reason=str(last.info.get("reason", "")),
        parent=seat.parent,
        fork_turn=seat.start.turn if seat.start.parent is not None else None,
        metadata=frozen(facts | {name: value for name, value in played.items() if value}),
    )


def _executed(seat: Seat) -> tuple[Turn, ...]:
    """Its turns, worth whether the calls of its own one executed; what the shared ones were worth is not its doing."""
    *shared, own = seat.turns
    passed = bool(own.calls) and not any(observation.failed for observation in own.observations)
    name = str(seat.start.component)
    return (*(replace(one, rewards=frozen()) for one in shared), replace(own, rewards=frozen({name: float(passed)})))
