"""An episode: a task, its sandboxes, and the turns played so far.

Owns what a turn does, when an episode ends and what it is worth. Knows nothing of HTTP, leases or repeated requests
(the server's dispatcher does), and nothing of a model: it is told facts about each generation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from agenthub.codec import encode, trajectory_hash
from agenthub.errors import BoxLost, HostFault, TaskBroken, UserError, WireError, nearest
from agenthub.records import (
    Call,
    Finish,
    Generation,
    Observation,
    Outcome,
    Stop,
    Text,
    Trajectory,
    Turn,
    floats,
    frozen,
    ints,
)
from agenthub.registry import registry
from agenthub.renderer import Parsed, ParsedCall, TextProtocol
from agenthub.rewards.score import Workspace
from agenthub.rewards.turns import turn_rewards
from agenthub.rewards.verify import verify
from agenthub.sandbox import CodeBox, FileChange, Sandbox, SandboxFactory, SandboxSpec, ToolSpec, Tracked
from agenthub.suites.task import Task, TaskLimits
from agenthub.wire import Action, GenerationIn, LimitsIn, StepDone

__all__ = ["Episode", "Workbench"]

REMINDER = "Neither a call nor an answer was found in the last turn."


class Workbench:
    """The sandbox factories of one process, opened by registry name on first use."""

    def __init__(self, isolation: str = "jail") -> None:
        self.isolation = isolation
        self._factories: dict[str, SandboxFactory] = {}
        self._lock = asyncio.Lock()

    async def factory(self, uses: str) -> SandboxFactory:
        """The factory of one sandbox kind.

        Raises:
            UnknownName, UserError: no such kind, or this machine cannot have it.
            HostFault: its shared part could not be started.
        """
        found = self._factories.get(uses)
        if found is not None:
            return found
        async with self._lock:
            if uses not in self._factories:
                made = cast(SandboxFactory, registry("sandbox").load(uses)(isolation=self.isolation))
                await made.open()
                self._factories[uses] = made
            return self._factories[uses]

    async def code_box(self, uses: str) -> CodeBox:
        """A fresh grading box. Raises as `factory` and `SandboxFactory.code_box` do."""
        return await self.box(uses, SandboxSpec(isolation=self.isolation))

    async def box(self, uses: str, spec: SandboxSpec) -> CodeBox:
        """A fresh grading box with this spec. Raises as `code_box` does."""
        return await (await self.factory(uses)).code_box(spec)

    def capabilities(self) -> dict[str, Any]:
        """What the opened sandbox kinds can do, by name."""
        return {name: encode(factory.capabilities()) for name, factory in sorted(self._factories.items())}

    async def close(self) -> None:
        """Close every factory, the last opened first."""
        while self._factories:
            _, factory = self._factories.popitem()
            await factory.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tool:
    """A tool of the episode: where its calls go."""

    sandbox: Sandbox
    tool: str
    spec: ToolSpec


@dataclass(slots=True)
class _Ending:
    """How the episode ended, as far as the current turn knows."""

    stop: Stop
    outcome: Outcome = Outcome.OK
    reason: str = ""


class Episode:
    """One episode; one caller at a time."""

    def __init__(
        self,
        task: Task,
        workbench: Workbench,
        *,
        id: str,
        group: str,
        member: int,
        limits: LimitsIn | None = None,
    ) -> None:
        """
        Raises:
            UserError: `limits` asks for more than the task allows.
        """
        self.task, self.id, self.group, self.member = task, id, group, member
        self.limits = _lowered(task.limits, limits)
        self.trajectory: Trajectory | None = None
        self._workbench = workbench
        self._protocol: TextProtocol = registry("protocol").load(task.protocol)()
        self._tools: dict[str, _Tool] = {}
        self._sandboxes: list[Sandbox] = []
        self._kinds: dict[str, Sandbox] = {}
        self._turns: list[Turn] = []
        self._paid: set[str] = set()
        self._opened_at = time.monotonic()

    @property
    def next_turn(self) -> int:
        """Index of the turn that comes next."""
        return len(self._turns)

    @property
    def played(self) -> tuple[Turn, ...]:
        """The turns so far."""
        return tuple(self._turns)

    @property
    def done(self) -> bool:
        """True once there is a trajectory."""
        return self.trajectory is not None

    async def open(self) -> dict[str, Any]:
        """Start the sandboxes and give the first observation (`wire.EpisodeOpened.observation`).

        Raises:
            UserError: a sandbox or what the task requires cannot be had here.
            HostFault: a start failed on our side. Nothing is left behind in either case.
        """
        try:
            async with asyncio.timeout(self.limits.setup_seconds):
                await self._start_sandboxes()
        except TimeoutError:
            await self._close_sandboxes()
            raise HostFault(f"the sandboxes did not start within {self.limits.setup_seconds} s") from None
        except BaseException:
            await asyncio.shield(self._close_sandboxes())
            raise
        self._opened_at = time.monotonic()
        return {
            "messages": [encode(message) for message in self.task.messages],
            "tools": [encode(tool.spec) for tool in self._tools.values()],
            "protocol": self.task.protocol,
        }

    async def step(self, action: Action, *, timeout_s: float | None, generation: GenerationIn | None) -> StepDone:
        """Play one turn. What the policy did wrong is in the answer, never an exception.

        Raises:
            WireError: `episode_done`, or `token_mismatch` for facts about tokens that do not fit; nothing has changed.
        """
        if self.trajectory is not None:
            raise WireError("episode_done", 410, f"episode {self.id} has ended: {self.trajectory.stop}")
        record = _generation(generation)
        started = time.monotonic()
        parsed = _parse(self._protocol, action)
        calls = self._calls(parsed, action)
        turn = Turn(
            index=self.next_turn,
            generation=record,
            text=parsed.text,
            calls=calls,
            answer=parsed.answer,
            parse_error=parsed.parse_error,
        )
        observations: tuple[Observation, ...] = ()
        ending: _Ending | None = None
        if self._seconds_left() <= 0:
            ending = _Ending(Stop.OUT_OF_TIME)
        else:
            observations, ending = await self._run_calls(calls, timeout_s)
        ending = ending or self._ending(turn, generation)
        if ending is None and not calls and self.task.on_no_call == "remind":
            observations = (Observation(call_id="", parts=(Text(text=REMINDER, channel="notice"),)),)
        turn = replace(turn, observations=observations)
        rewards = turn_rewards(self.task, turn, self._paid)
        outcome_reward = await self._verify((*self._turns, turn), ending) if ending else None
        if outcome_reward is not None:
            rewards = {**rewards, "outcome": outcome_reward}
        self._turns.append(replace(turn, rewards=frozen(rewards), seconds=time.monotonic() - started))
        if ending is not None:
            await self._finish(ending)
        return self._answer(self._turns[-1])

    async def cancel(self) -> Trajectory:
        """End the episode now, without a reward. Safe to call again."""
        return self.trajectory or await self._finish(_Ending(Stop.CANCELLED))

    async def read_file(self, path: str) -> bytes:
        """A file of the first sandbox's workspace. Raises as `Sandbox.read_file` does."""
        return await self._workspace().read_file(path)

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file into the first sandbox's workspace. Raises as `Sandbox.write_file` does."""
        await self._workspace().write_file(path, data)

    def _workspace(self) -> Sandbox:
        if not self._sandboxes:
            raise UserError(
                f"task {self.task.key} has no sandbox with files" if not self.done else "the episode has ended"
            )
        return self._sandboxes[0]

    async def _changes(self, uses: str) -> tuple[FileChange, ...]:
        """What the episode changed in its sandbox of one kind. Raises as `Tracked.changes` does."""
        sandbox = self._kinds.get(uses)
        if not isinstance(sandbox, Tracked):
            raise UserError(f"the episode has no {uses!r} sandbox that can tell what changed in it")
        return await sandbox.changes()

    async def _start_sandboxes(self) -> None:
        started: list[tuple[str, SandboxSpec, Sandbox]] = []
        for use in self.task.tools:
            factory = await self._workbench.factory(use.uses)
            # Two tools of one kind and one spec share one box: what the first wrote, the second reads.
            sandbox = next((box for uses, spec, box in started if (uses, spec) == (use.uses, use.spec)), None)
            if sandbox is None:
                sandbox = await factory.start(use.spec)
                self._sandboxes.append(sandbox)
                self._kinds.setdefault(use.uses, sandbox)
                started.append((use.uses, use.spec, sandbox))
            spec = _tool_spec(factory, use.tool or factory.tools[0].name)
            self._tools[use.name] = _Tool(sandbox=sandbox, tool=spec.name, spec=replace(spec, name=use.name))

    async def _close_sandboxes(self) -> None:
        boxes, self._sandboxes = self._sandboxes, []
        for box in boxes:
            await box.close()

    def _calls(self, parsed: Parsed, action: Action) -> tuple[Call, ...]:
        given = [call.id for call in action.calls] if action.calls else []
        first = next(iter(self._tools), "")
        made = []
        for position, call in enumerate(parsed.calls):
            identity = (given[position] if position < len(given) else None) or f"{self.next_turn}.{position}"
            made.append(Call(id=identity, tool=call.tool or first, arguments=frozen(call.arguments)))
        return tuple(made)

    async def _run_calls(
        self, calls: Sequence[Call], timeout_s: float | None
    ) -> tuple[tuple[Observation, ...], _Ending | None]:
        """Run the calls in order within the turn's time; a lost box ends the episode."""
        budget = min(self.limits.turn_seconds, timeout_s or self.limits.turn_seconds, self._seconds_left())
        deadline = time.monotonic() + budget
        shown: list[Observation] = []
        for call in calls:
            tool = self._tools.get(call.tool)
            if tool is None:
                shown.append(_notice(call, f"no tool named {call.tool!r}{nearest(call.tool, self._tools)}"))
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                shown.append(_notice(call, "not run: the turn's time is up"))
                continue
            try:
                shown.append(await tool.sandbox.call(replace(call, tool=tool.tool), timeout_s=left))
            except BoxLost as lost:
                shown.append(_notice(call, str(lost)))
                return tuple(shown), _Ending(Stop.SANDBOX_LOST, Outcome.MODEL_FAULT, str(lost))
            except HostFault as fault:
                return tuple(shown), _Ending(Stop.SANDBOX_LOST, Outcome.INFRA_FAULT, str(fault))
        return tuple(shown), None

    def _ending(self, turn: Turn, generation: GenerationIn | None) -> _Ending | None:
        """The first rule that ends the episode after this turn; None where it goes on."""
        if turn.answer is not None:
            return _Ending(Stop.ANSWERED)
        if generation and generation.prompt_tokens + generation.completion_tokens >= self.limits.max_tokens:
            return _Ending(Stop.OUT_OF_TOKENS)
        if not turn.calls and self.task.on_no_call == "end":
            return _Ending(Stop.NO_CALL)
        if turn.index + 1 >= self.limits.max_turns:
            return _Ending(Stop.OUT_OF_TURNS)
        if self._seconds_left() <= 0:
            return _Ending(Stop.OUT_OF_TIME)
        return None

    async def _verify(self, turns: tuple[Turn, ...], ending: _Ending) -> float | None:
        """The outcome component; None where the episode is not scored. A fault is written into `ending`."""
        if ending.outcome is Outcome.MODEL_FAULT:
            return 0.0
        if ending.outcome is not Outcome.OK:
            return None
        try:
            async with asyncio.timeout(self.limits.verify_seconds):
                workspace = Workspace(changes=self._changes, box=self._workbench.box)
                verdict = await verify(self.task, turns, turns[-1].answer, self._workbench.code_box, workspace)
        except TimeoutError:
            # The checks bound each piece of candidate code; what is slow as a whole is the candidate's doing.
            ending.reason = f"verification took more than {self.limits.verify_seconds} s"
            return 0.0
        except HostFault as fault:
            ending.outcome, ending.reason = Outcome.INFRA_FAULT, str(fault)
            return None
        except TaskBroken as broken:
            ending.outcome, ending.reason = Outcome.ENV_FAULT, str(broken)
            return None
        ending.reason = verdict.reason
        return verdict.outcome

    async def _finish(self, ending: _Ending) -> Trajectory:
        scored = ending.outcome.scored and ending.stop is not Stop.CANCELLED
        totals: dict[str, float] = {}
        for turn in self._turns:
            for name, value in turn.rewards.items():
                totals[name] = totals.get(name, 0.0) + value
        self.trajectory = Trajectory(
            task=self.task.key,
            group=self.group,
            member=self.member,
            turns=tuple(self._turns),
            stop=ending.stop,
            outcome=ending.outcome,
            rewards=frozen(totals),
            reward=float(sum(turn.reward for turn in self._turns)) if scored else None,
            reason=ending.reason,
            metadata=self.task.metadata,
        )
        await asyncio.shield(self._close_sandboxes())
        return self.trajectory

    def _answer(self, turn: Turn) -> StepDone:
        end = self.trajectory
        info: dict[str, Any] = {
            "text": turn.text,
            "calls": encode(turn.calls),
            "answer": turn.answer,
            "parse_error": turn.parse_error,
        }
        if end is not None:
            info |= {
                "stop": end.stop.value,
                "outcome": end.outcome.value,
                "reason": end.reason,
                "hash": trajectory_hash(end),
            }
        return StepDone(
            episode=self.id,
            turn=turn.index,
            observation={
                "text": self._protocol.show(turn.observations),
                "observations": encode(turn.observations),
            },
            reward=None if end is not None and end.reward is None else turn.reward,
            rewards=dict(turn.rewards),
            terminated=end is not None and not end.stop.truncated,
            truncated=end is not None and end.stop.truncated,
            info=info,
        )

    def _seconds_left(self) -> float:
        return self.limits.episode_seconds - (time.monotonic() - self._opened_at)


def _parse(protocol: TextProtocol, action: Action) -> Parsed:
    if action.calls is not None:
        calls = tuple(ParsedCall(tool=call.tool, arguments=call.arguments) for call in action.calls)
        return Parsed(text=action.text or "", calls=calls)
    if action.answer is not None:
        return Parsed(text=action.text or "", answer=action.answer)
    return protocol.read(action.text or "")


def _generation(told: GenerationIn | None) -> Generation | None:
    """The record of a generation that came with its tokens; None where only counts were told.

    Raises:
        WireError: `token_mismatch`: lengths, ranges or values do not fit together; `aborted_generation`.
    """
    if told is None:
        return None
    if told.finish is Finish.ABORT:
        raise WireError("aborted_generation", 422, "an aborted generation is not a step: sample the turn again")
    if told.ids is None and told.logprobs is None and told.prompt_ids is None:
        return None
    if told.ids is None or told.logprobs is None or told.prompt_ids is None:
        raise WireError("token_mismatch", 422, "generation: prompt_ids, ids and logprobs come together or not at all")
    for name, count, told_count in (
        ("prompt_ids", len(told.prompt_ids), told.prompt_tokens),
        ("ids", len(told.ids), told.completion_tokens),
    ):
        if count != told_count:
            raise WireError("token_mismatch", 422, f"generation.{name} has {count} tokens, the count says {told_count}")
    try:
        return Generation(
            policy=told.policy,
            prompt_ids=ints(told.prompt_ids),
            ids=ints(told.ids),
            logprobs=floats(told.logprobs),
            versions=((0, told.weight_version),) if told.ids else (),
            finish=told.finish,
        )
    except ValueError as error:
        raise WireError("token_mismatch", 422, str(error)) from None


def _lowered(limits: TaskLimits, asked: LimitsIn | None) -> TaskLimits:
    changes: dict[str, Any] = {}
    for name, value in asked.model_dump(exclude_none=True).items() if asked else ():
        allowed = getattr(limits, name)
        if value > allowed:
            raise UserError(f"limits.{name} is {value}; the task allows {allowed}")
        changes[name] = value
    return replace(limits, **changes)


def _tool_spec(factory: SandboxFactory, name: str) -> ToolSpec:
    known = {spec.name: spec for spec in factory.tools}
    if name not in known:
        raise UserError(f"the sandbox has no tool named {name!r}{nearest(name, known)}")
    return known[name]


def _notice(call: Call, text: str) -> Observation:
    return Observation(call_id=call.id, parts=(Text(text=text, channel="notice"),), failed=True)
