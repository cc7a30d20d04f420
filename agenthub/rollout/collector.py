"""The collector: groups grow, a wave after the other, and each wave is played turn by turn.

A wave is what a group's `Growth` begins at once. Within it a turn that has been sampled may be forked before it is
played. A member that our side lost (`infra_fault`) is played again under its group with the same seeds, a branch from
the same state of its parent; nothing else is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agenthub.client import Hub
from agenthub.errors import HostFault
from agenthub.policy import Bounded, Policy, Request, Sampling
from agenthub.records import Finish, Generation, Outcome, Trajectory, floats, ints
from agenthub.renderer import Parsed, Renderer
from agenthub.rollout.growth import Roots, Strategy
from agenthub.rollout.opening import Begun, Opener, end, together
from agenthub.rollout.seats import Group, Seat, blank, cut, trajectory, turn
from agenthub.rollout.types import CollectStats, Meter, Play, Start, turn_seed
from agenthub.wire import Action, CallIn, GenerationIn

__all__ = ["Collector"]


class Collector:
    """Collects trajectories with one trained policy; every turn has its Generation."""

    def __init__(
        self,
        hub: Hub,
        policy: Policy,
        renderer: Renderer,
        *,
        sampling: Sampling,
        native_calls: bool = False,
        blank_tools: bool = False,
        replays: int = 3,
        strategy: Strategy | None = None,
        lease_s: float = 60.0,
    ) -> None:
        """
        Args:
            native_calls: send parsed calls and answers, not text (renderers with a tool-call syntax of their own).
            blank_tools: a control: the policy sees empty observations in place of what its tools showed.
            replays: how often a member that our side lost is played again before HostFault is raised.
            strategy: what groups grow into; None is `count` members from the root.
            lease_s: after a kill of this process, the hub ends its episodes within that time.
        """
        self._count_anew()
        self._hub, self._policy, self._renderer = hub, policy, renderer
        self._sampling, self._native, self._blank, self._replays = sampling, native_calls, blank_tools, replays
        self._strategy: Strategy = strategy or Roots()
        self._lease_s = lease_s

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """The trajectories of each play, in order of play and member: `count` of them, or what its strategy makes.

        Members of a task that is broken or in quarantine are not played: outcome `env_fault`, no turns, no reward.

        Raises:
            HostFault: a member was lost by our side more often than `replays` allows.
            HubUnreachable, WireError: as the client raises them. No episode is left open in any case.
        """
        self._count_anew()
        planned = [self._strategy.planned(play) for play in plays]
        groups = [Group(play, self._strategy.grow(play)) for play in planned]
        if self._policy.lockstep:
            await self._grow(groups, seed)
        else:
            await together(self._grow([group], seed) for group in groups)
        return [group.ended[member] for group in groups for member in sorted(group.ended)]

    async def _grow(self, groups: Sequence[Group], seed: int) -> None:
        """Wave after wave, until no group wants more."""
        while True:
            wave = [(group, start) for group in groups for start in group.growth.more(group.ended)]
            if not wave:
                return
            while wave:
                wave = await self._wave(wave, seed)

    async def _wave(self, wave: Sequence[Begun], seed: int) -> list[Begun]:
        """Play a wave; what our side lost of it, to be played again.

        Raises:
            HostFault: a member has been lost too often.
        """
        # A branch is made again once its parent has been: that one's new episode is what it is forked from.
        gone = {(group.play.group, start.member) for group, start in wave}
        first = [(group, start) for group, start in wave if (group.play.group, start.parent) not in gone]
        later = [(group, start) for group, start in wave if (group.play.group, start.parent) in gone]
        opener = Opener(self._hub, self._renderer, self.stats, lease_s=self._lease_s)
        playing = _Wave({group.play.group: group for group, _ in wave}, opener, seed)
        await self._play(first, playing)
        lost = list(opener.lost)
        for seat in playing.seats:
            group = playing.groups[seat.play.group]
            made = trajectory(seat) if seat.lost is None else None
            if made is None or made.outcome is Outcome.INFRA_FAULT:
                opener.reason = made.reason if made else str(seat.lost)
                lost.append((group, seat.start))
            else:
                group.ended[seat.member] = made
        self._count(lost, opener.reason)
        return [*lost, *later]

    def _count_anew(self) -> None:
        self.stats = CollectStats()
        self._policy_works = Meter(self.stats, "generate_s")
        self._hub_works = Meter(self.stats, "environment_s")

    def _count(self, lost: Sequence[Begun], reason: str) -> None:
        """Raise HostFault where a member has been lost more often than it is played again."""
        for group, start in lost:
            group.lost[start.member] = group.lost.get(start.member, 0) + 1
        names = [f"{g.play.group}[{start.member}]" for g, start in lost if g.lost[start.member] > self._replays]
        if names:
            times = self._replays + 1
            raise HostFault(f"{len(names)} members lost {times} times by our side, {names[0]} first: {reason}")
        self.stats.replayed += len(lost)

    async def _play(self, starts: Sequence[Begun], wave: _Wave) -> None:
        """Every seat of these starts and every one forked from them, played to its end; all episodes are closed."""
        with self._hub_works:
            wave.seats = await wave.opener.open(starts)
        try:
            if self._policy.lockstep:
                await self._rounds(wave.seats, wave)
            else:
                async with asyncio.TaskGroup() as wave.tasks:
                    for seat in list(wave.seats):
                        wave.tasks.create_task(self._rounds([seat], wave))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            try:
                await self._policy.forget([seat.handle.id for seat in wave.seats])
            finally:
                await end(wave.seats)

    async def _rounds(self, seats: Sequence[Seat], wave: _Wave) -> None:
        """Sample a turn for every live seat, fork what is to be forked, step them all, again until none is live.

        Forked seats join, or are played beside these where the policy needs no lockstep.
        """
        live = list(seats)
        while live:
            with self._policy_works:
                generations = await self._generate(live, wave.seed)
            with self._hub_works:
                forked = await wave.fork(live, generations)
                await together(self._step(seat, generation) for seat, generation in zip(live, generations, strict=True))
            if wave.tasks is not None:
                for seat in forked:
                    wave.tasks.create_task(self._rounds([seat], wave))
                forked = []
            live = [seat for seat in [*live, *forked] if not seat.ended]

    async def _generate(self, seats: Sequence[Seat], seed: int) -> list[Generation]:
        asked = [seat for seat in seats if self._room(seat) > 0 and not self._whole(seat)]
        requests = [self._asking(seat, seed) for seat in asked]
        made = await self._policy.generate(requests) if requests else []
        answers = {seat.handle.id: answer for seat, answer in zip(asked, made, strict=True)}
        return [answers.get(seat.handle.id) or self._nothing(seat) for seat in seats]

    def _asking(self, seat: Seat, seed: int) -> Request:
        guide = seat.guide.tolist()
        complete = self._renderer.complete
        return Request(
            prompt_ids=ints([*seat.prompt, *guide]),
            sampling=replace(self._sampling, max_tokens=min(self._sampling.max_tokens, self._room(seat))),
            seed=turn_seed(seed, seat.play.group, seat.member, len(seat.turns)),
            stop_ids=self._renderer.stop_ids,
            complete=(lambda ids: complete([*guide, *ids])) if guide else complete,
            episode=seat.handle.id,
        )

    def _room(self, seat: Seat) -> int:
        """Tokens that the next turn may have, by the episode's limit and, once it has begun, by the model's context.

        A first prompt that fills the context is no episode's end but a mistake, which the policy tells.
        """
        most = seat.max_tokens
        if seat.turns and isinstance(self._policy, Bounded):
            most = min(most, self._policy.context)
        return most - len(seat.prompt) - int(seat.guide.size)

    def _whole(self, seat: Seat) -> bool:
        """The next turn is given: its guide is an action already."""
        return bool(seat.guide.size) and self._renderer.complete(seat.guide.tolist())

    def _nothing(self, seat: Seat) -> Generation:
        """No token was sampled: the turn was given, or the context is full, and the hub is told so."""
        return Generation(
            policy=self._policy.name,
            prompt_ids=ints([*seat.prompt, *seat.guide.tolist()]),
            ids=ints([]),
            logprobs=floats([]),
            versions=(),
            finish=Finish.STOP if self._whole(seat) else Finish.LENGTH,
        )

    def _renderer_of(self, seat: Seat) -> Renderer:
        """Of the policy whose turn it is."""
        del seat
        return self._renderer

    def _action(self, seat: Seat, parsed: Parsed) -> Action:
        """What is sent to the hub for a turn."""
        del seat
        if self._native:
            calls = [CallIn(tool=call.tool, arguments=dict(call.arguments)) for call in parsed.calls]
            if calls:
                return Action(text=parsed.text, calls=calls)
            if parsed.answer is not None:
                return Action(text=parsed.text, answer=parsed.answer)
        return Action(text=parsed.text)

    async def _step(self, seat: Seat, generation: Generation) -> None:
        guide = seat.guide.tolist()
        parsed, kept = self._renderer_of(seat).parse(ints([*guide, *generation.ids.tolist()]))
        generation = cut(generation, max(0, kept - len(guide)))
        action = self._action(seat, parsed)
        told = GenerationIn(
            finish=generation.finish,
            prompt_tokens=generation.prompt_ids.size,
            completion_tokens=generation.ids.size,
            weight_version=generation.versions[-1][1] if generation.versions else self._policy.weight_version(),
            policy=generation.policy,
        )
        try:
            done = await seat.handle.step(action, generation=told)
        except HostFault as fault:
            seat.lost = str(fault)
            return
        seat.turns.append(turn(seat.recorded(generation), done))
        seat.contexts.append(len(seat.prompt))
        seat.last = done
        self.stats.tokens += generation.ids.size
        self.stats.turns += 1
        if not seat.ended:
            made = seat.turns[-1].observations
            shown = tuple(blank(item) for item in made) if self._blank else made
            said = [*guide, *generation.ids.tolist()]
            closed = bool(said) and said[-1] in self._renderer.stop_ids
            seat.prompt += [*said, *self._renderer.extend(shown, ended=closed).tolist()]


@dataclass(slots=True)
class _Wave:
    """What is played at once."""

    groups: dict[str, Group]
    opener: Opener
    seed: int
    seats: list[Seat] = field(default_factory=list)
    tasks: asyncio.TaskGroup | None = None
    """Plays seats beside each other; None where all take their turns together."""

    async def fork(self, live: Sequence[Seat], generations: Sequence[Generation]) -> list[Seat]:
        """The seats that are forked before the sampled turns are played; they are among `seats` from now on."""
        asked = [row for it, made in zip(live, generations, strict=True) for row in self._copies(it, made)]
        forked = await self.opener.open(asked) if asked else []
        self.seats += forked
        return forked

    def _copies(self, seat: Seat, generation: Generation) -> list[Begun]:
        """The forks that a seat's group asks for."""
        group, place = self.groups[seat.play.group], len(seat.turns)
        again = seat.start.parent is not None and place == seat.start.turn
        if again or (seat.member, place) in group.asked or not generation.ids.size:
            return []
        group.asked.add((seat.member, place))
        members = group.growth.copies(seat.member, seat.turns, generation)
        return [(group, Start(member=member, parent=seat.member, turn=place)) for member in members]
