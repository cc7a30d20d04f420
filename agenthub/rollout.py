"""Rollout: plays groups of episodes on a hub with a policy, and keeps every token.

Owns the tokens and the sampling on the trainer's side: prompts are extended by ids, never rendered again, and each
turn's `Generation` is what the engine consumed and produced. A member that our side lost (`infra_fault`) is played
again under its group with the same seeds.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agenthub.client import EpisodeHandle, Hub
from agenthub.codec import decode
from agenthub.errors import HostFault, WireError
from agenthub.policy import Policy, Request, Sampling
from agenthub.records import (
    Call,
    Finish,
    Generation,
    Message,
    Observation,
    Outcome,
    Stop,
    Trajectory,
    Turn,
    floats,
    frozen,
    ints,
)
from agenthub.renderer import Parsed, Renderer
from agenthub.sandbox import ToolSpec
from agenthub.wire import Action, CallIn, GenerationIn, StepDone

__all__ = ["CollectStats", "Collector", "Play", "Seat", "turn_seed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One group to collect: `count` members on one task."""

    suite: str
    task: str
    count: int
    group: str


@dataclass(slots=True)
class CollectStats:
    """What one `collect` cost."""

    generate_s: float = 0.0
    """Wall seconds in which the policy sampled."""
    environment_s: float = 0.0
    """Wall seconds in which the hub opened and stepped episodes."""
    tokens: int = 0
    """Sampled tokens."""
    turns: int = 0
    replayed: int = 0
    """Members played again because our side had lost them."""


def turn_seed(seed: int, group: str, member: int, turn: int) -> int:
    """The seed of one turn's sampling: the same whatever else is played beside it."""
    digest = hashlib.blake2b(f"{seed}/{group}/{member}/{turn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(slots=True)
class Seat:
    """One member being played."""

    play: Play
    member: int
    handle: EpisodeHandle
    prompt: list[int]
    max_tokens: int
    turns: list[Turn]
    last: StepDone | None = None
    lost: str | None = None
    """Why our side lost the episode before it could end; None while it has not."""


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
    ) -> None:
        """
        Args:
            native_calls: send parsed calls and answers, not text (renderers with a tool-call syntax of their own).
            blank_tools: a control: the policy sees empty observations in place of what its tools showed.
            replays: how often a member that our side lost is played again before HostFault is raised.
        """
        self.stats = CollectStats()
        self._reason = ""
        self._unplayed: list[Trajectory] = []
        self._hub, self._policy, self._renderer = hub, policy, renderer
        self._sampling, self._native, self._blank, self._replays = sampling, native_calls, blank_tools, replays

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """One trajectory for each member of each play, in order of play and member.

        Members of a task that is broken or in quarantine are not played: outcome `env_fault`, no turns, no reward.

        Raises:
            HostFault: a member was lost by our side more often than `replays` allows.
            HubUnreachable, WireError: as the client raises them.
        """
        self.stats = CollectStats()
        wanted = [(play, member) for play in plays for member in range(play.count)]
        done: dict[tuple[str, int], Trajectory] = {}
        self._reason = ""
        for attempt in range(self._replays + 1):
            missing = [(play, member) for play, member in wanted if (play.group, member) not in done]
            if not missing:
                break
            if attempt:
                self.stats.replayed += len(missing)
            for trajectory in await self._play(missing, seed):
                if trajectory.outcome is Outcome.INFRA_FAULT:
                    self._reason = trajectory.reason
                else:
                    done[trajectory.group, trajectory.member] = trajectory
        lost = [f"{play.group}[{member}]" for play, member in wanted if (play.group, member) not in done]
        if lost:
            times = self._replays + 1
            raise HostFault(f"{len(lost)} members lost {times} times by our side, {lost[0]} first: {self._reason}")
        return [done[play.group, member] for play, member in wanted]

    async def _play(self, members: Sequence[tuple[Play, int]], seed: int) -> list[Trajectory]:
        self._unplayed = []
        seats = await self._open(members)
        try:
            if self._policy.lockstep:
                await self._rounds(seats, seed)
            else:
                async with asyncio.TaskGroup() as group:
                    for seat in seats:
                        group.create_task(self._rounds([seat], seed))
        finally:
            await self._policy.forget([seat.handle.id for seat in seats])
            unfinished = [seat.handle for seat in seats if not _ended(seat)]
            if unfinished:
                await asyncio.shield(asyncio.gather(*(h.close() for h in unfinished), return_exceptions=True))
        return [*(_trajectory(seat) for seat in seats if seat.lost is None), *self._unplayed]

    async def _open(self, members: Sequence[tuple[Play, int]]) -> list[Seat]:
        """Open the episodes: members of a group that follow each other are created by one request."""
        started = time.perf_counter()
        runs: list[tuple[Play, int, int]] = []
        for play, member in members:
            if runs and runs[-1][0] is play and runs[-1][1] + runs[-1][2] == member:
                runs[-1] = (play, runs[-1][1], runs[-1][2] + 1)
            else:
                runs.append((play, member, 1))
        opened = await asyncio.gather(*(self._create(play, first, count) for play, first, count in runs))
        self.stats.environment_s += time.perf_counter() - started
        return [seat for seats in opened for seat in seats]

    async def _create(self, play: Play, first: int, count: int) -> list[Seat]:
        try:
            handles = await self._hub.create(
                play.suite, task=play.task, count=count, group=play.group, first_member=first
            )
        except HostFault as fault:
            self._reason = str(fault)
            return []
        except WireError as refused:
            if refused.code not in ("env_fault", "task_quarantined"):
                raise
            self._unplayed += [_unplayed(play, member, refused.message) for member in range(first, first + count)]
            return []
        seats = []
        for handle in handles:
            messages = [decode(Message, row) for row in handle.observation["messages"]]
            tools = [decode(ToolSpec, row) for row in handle.observation["tools"]]
            seats.append(
                Seat(
                    play=play,
                    member=handle.member,
                    handle=handle,
                    prompt=self._renderer.open(messages, tools).tolist(),
                    max_tokens=int(handle.info["limits"]["max_tokens"]),
                    turns=[],
                )
            )
        return seats

    async def _rounds(self, seats: Sequence[Seat], seed: int) -> None:
        """Sample a turn for every live seat, step them all, again until none is live."""
        live = list(seats)
        while live:
            started = time.perf_counter()
            generations = await self._generate(live, seed)
            sampled = time.perf_counter()
            await asyncio.gather(
                *(self._step(seat, generation) for seat, generation in zip(live, generations, strict=True))
            )
            self.stats.generate_s += sampled - started
            self.stats.environment_s += time.perf_counter() - sampled
            live = [seat for seat in live if not _ended(seat)]

    async def _generate(self, seats: Sequence[Seat], seed: int) -> list[Generation]:
        rooms = [seat.max_tokens - len(seat.prompt) for seat in seats]
        asked = [seat for seat, room in zip(seats, rooms, strict=True) if room > 0]
        requests = [
            Request(
                prompt_ids=ints(seat.prompt),
                sampling=replace(
                    self._sampling, max_tokens=min(self._sampling.max_tokens, seat.max_tokens - len(seat.prompt))
                ),
                seed=turn_seed(seed, seat.play.group, seat.member, len(seat.turns)),
                stop_ids=self._renderer.stop_ids,
                complete=self._renderer.complete,
                episode=seat.handle.id,
            )
            for seat in asked
        ]
        answers = iter(await self._policy.generate(requests) if requests else [])
        return [next(answers) if room > 0 else self._nothing(seat) for seat, room in zip(seats, rooms, strict=True)]

    def _nothing(self, seat: Seat) -> Generation:
        """No token was sampled: the context is full, and the hub is told so."""
        return Generation(
            policy=self._policy.name,
            prompt_ids=ints(seat.prompt),
            ids=ints([]),
            logprobs=floats([]),
            versions=(),
            finish=Finish.LENGTH,
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
        parsed, kept = self._renderer_of(seat).parse(generation.ids)
        generation = _kept(generation, kept)
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
            seat.lost = self._reason = str(fault)
            return
        turn = _turn(generation, done)
        seat.turns.append(turn)
        seat.last = done
        self.stats.tokens += generation.ids.size
        self.stats.turns += 1
        if not _ended(seat):
            shown = tuple(_blank(item) for item in turn.observations) if self._blank else turn.observations
            closed = bool(generation.ids.size) and int(generation.ids[-1]) in self._renderer.stop_ids
            seat.prompt += [*generation.ids.tolist(), *self._renderer.extend(shown, ended=closed).tolist()]


def _ended(seat: Seat) -> bool:
    return seat.lost is not None or (seat.last is not None and (seat.last.terminated or seat.last.truncated))


def _blank(observation: Observation) -> Observation:
    return replace(observation, parts=())


def _kept(generation: Generation, kept: int) -> Generation:
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


def _turn(generation: Generation, done: StepDone) -> Turn:
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


def _unplayed(play: Play, member: int, reason: str) -> Trajectory:
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


def _trajectory(seat: Seat) -> Trajectory:
    """The trajectory as the trainer keeps it: the hub's facts with this side's tokens."""
    last = seat.last
    assert last is not None  # every seat has been stepped until it ended
    totals: dict[str, float] = {}
    for turn in seat.turns:
        for name, value in turn.rewards.items():
            totals[name] = totals.get(name, 0.0) + value
    return Trajectory(
        task=f"{seat.play.suite}/{seat.play.task}",
        group=seat.play.group,
        member=seat.member,
        turns=tuple(seat.turns),
        stop=Stop(last.info["stop"]),
        outcome=Outcome(last.info["outcome"]),
        rewards=frozen(totals),
        reward=None if last.reward is None else float(sum(turn.reward for turn in seat.turns)),
        reason=last.info["reason"],
        metadata=frozen(seat.handle.info.get("metadata", {})),
    )
