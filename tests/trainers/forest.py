"""A game behind a hub's client: the real collector plays it with a tiny model, and episodes can be forked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agenthub.codec import encode
from agenthub.errors import HostFault, WireError
from agenthub.policy import Request, Sampling
from agenthub.records import Call, Generation, Ints, Message, Observation, Text, Trajectory, floats, frozen, ints
from agenthub.renderer import Parsed, ParsedCall
from agenthub.rollout import Collector, Play
from agenthub.trainers.rollouts import Bound
from agenthub.trainers.rollouts.plain import Fixed
from agenthub.wire import Action, GenerationIn, LimitsIn, StepDone
from tests.trainers.fakes import FakePolicy

__all__ = ["Forest", "ForestGame", "ForestPolicy", "Plain", "Tree", "collector_of"]

TURNS = 3
ORACLE = (ints([10, 11]), ints([12, 11]), ints([2, 3]))


class Tree:
    """One episode: two calls (a first token under 8 fails, 22 and 23 call nothing), then an answer, which wins if even
    and no turn was void."""

    def __init__(self, forest: Forest, task: str, member: int, turns: int, texts: Sequence[str] = ()) -> None:
        self.id, self.member, self.done = f"e{next(forest.ids)}", member, False
        self.observation = {"messages": [encode(Message(role="user", content=task))], "tools": []}
        self.info: dict[str, Any] = {"limits": {"max_tokens": 100, "max_turns": turns}, "fork": forest.way}
        self.texts = list(texts)
        self.forked = False
        self._forest, self._task, self._turns = forest, task, turns
        forest.live.add(self.id)

    async def step(self, action: Action, generation: GenerationIn) -> StepDone:
        await self._forest.on("step", self)
        assert not self.done and self.id in self._forest.live
        turn, text = len(self.texts), str(action.text)
        self.texts.append(text)
        first = int(text.split()[0]) if text else 0
        last, void = turn == TURNS - 1, any(int((text or "0").split()[0]) >= 22 for text in self.texts)
        called = not last and first < 22
        calls = [Call(id=f"{turn}.0", tool="python", arguments=frozen({"code": text}))] if called else []
        seen = [Observation(call_id=call.id, parts=(Text(text=text),), failed=first < 8) for call in calls]
        rewards = {"call_ok": 0.25} if called and first >= 8 else {}
        over = last or turn + 1 == self._turns
        if over:
            rewards["outcome"] = float(last and first % 2 == 0 and not void)
            self._end()
        info = {"text": text, "calls": [encode(call) for call in calls], "parse_error": None}
        ended = {"stop": "answered" if last else "out_of_turns", "outcome": "ok", "reason": ""} if over else {}
        return StepDone(
            turn=turn,
            observation={"observations": [encode(one) for one in seen]},
            reward=sum(rewards.values()),
            rewards=rewards,
            terminated=last,
            truncated=over and not last,
            info={**info, "answer": text if last else None, **ended},
        )

    async def fork(self, count: int, turn: int | None = None) -> list[Tree]:
        at = len(self.texts) if turn is None else turn
        assert at < TURNS
        made = [Tree(self._forest, self._task, n, self._turns, self.texts[:at]) for n in range(count)]
        for tree in made:
            tree.forked = True
        try:
            await self._forest.on("fork", self)
        except BaseException:
            for tree in made:
                tree._end()
            raise
        return made

    async def close(self) -> None:
        self._end()

    def _end(self) -> None:
        self.done = True
        self._forest.live.discard(self.id)


class Forest:
    """A hub's client; `live` are the episodes that have not ended."""

    def __init__(self, on: Callable[[str, Tree | None], Awaitable[None]] | None = None, way: str = "native") -> None:
        self.ids, self.live, self.way = itertools.count(), set[str](), way
        self._on = on

    async def on(self, operation: str, tree: Tree | None) -> None:
        """What a test wants to happen at an operation, once it has begun."""
        await asyncio.sleep(0)
        if self._on is not None:
            await self._on(operation, tree)

    async def tasks(self, suite: str, split: str | None = None) -> list[dict[str, Any]]:
        return [{"id": "easy-0", "limits": {"max_turns": TURNS}}]

    async def create(
        self,
        suite: str,
        task: str,
        *,
        count: int = 1,
        group: str,
        first_member: int = 0,
        limits: LimitsIn | None = None,
        lease_s: float = 60.0,
    ) -> list[Tree]:
        turns = (limits.max_turns if limits else None) or TURNS
        made = [Tree(self, task, first_member + n, turns) for n in range(count)]
        try:
            await self.on("create", None)
        except BaseException:
            for tree in made:
                tree._end()
            raise
        return made


class Plain:
    """Renders the game: a turn is two tokens, and its text their numbers."""

    stop_ids: frozenset[int] = frozenset()

    def open(self, messages: Sequence[Message], tools: Sequence[Any]) -> Ints:
        return ints([2 + sum(messages[0].content.encode()) % 9, 5, 6])

    def extend(self, observations: Sequence[Observation], *, ended: bool) -> Ints:
        return ints([*((3 if one.failed else 4) if one.call_id else 7 for one in observations), 6])

    def parse(self, ids: Ints) -> tuple[Parsed, int]:
        text = " ".join(str(one) for one in ids.tolist())
        return Parsed(text=text, calls=(ParsedCall(tool=None, arguments=frozen()),)), int(ids.size)

    def complete(self, ids: Sequence[int]) -> bool:
        return len(ids) >= 2


class ForestPolicy(FakePolicy):
    """Tells entropies, and takes prompts of any lengths."""

    name = "policy"

    def __init__(self, seed: int = 0, *, lockstep: bool = True) -> None:
        super().__init__(seed)
        self.lockstep = lockstep
        self.requests: list[Request] = []

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self.requests += requests
        made: dict[int, Generation] = {}
        for size in sorted({request.prompt_ids.size for request in requests}):
            places = [n for n, request in enumerate(requests) if request.prompt_ids.size == size]
            found = await super().generate([requests[n] for n in places])
            told = [replace(one, entropies=floats([0.5 + int(i) % 3 for i in one.ids])) for one in found]
            made |= dict(zip(places, told, strict=True))
        return [made[n] for n in range(len(requests))]

    async def forget(self, episodes: Sequence[str]) -> None:
        return None

    async def close(self) -> None:
        return None


def collector_of(
    forest: Forest, policy: ForestPolicy, strategy: Fixed, oracles: Mapping[str, tuple[Ints, ...]] | None = None
) -> Collector:
    """The real collector on the game."""
    bound = Bound(strategy=strategy, limits=frozen(), oracles=oracles or frozen())
    hub: Any = forest
    return Collector(hub, policy, Plain(), sampling=Sampling(max_tokens=2), strategy=bound)


class ForestGame:
    """As `games.Game`, through the collector and a strategy."""

    def __init__(self, policy: ForestPolicy, strategy: Fixed) -> None:
        self.forest = Forest()
        self.played: list[list[Trajectory]] = []
        self._policy, self._strategy = policy, strategy

    async def play(self, tasks: list[str], members: int, number: int) -> list[Trajectory]:
        plays = [
            Play(suite="suite", task=task, count=members, group=f"u{number}/{place}", update=number)
            for place, task in enumerate(tasks)
        ]
        collector = collector_of(self.forest, self._policy, self._strategy, dict.fromkeys(tasks, ORACLE))
        self.played.append(await collector.collect(plays, seed=0))
        assert not self.forest.live
        return self.played[-1]


def lost(text: str = "the supervisor is gone") -> HostFault:
    """Our side failed."""
    return HostFault(text)


def refused() -> WireError:
    """The hub does not make this copy."""
    return WireError("fork_refused", 409, "the program has a second thread")
