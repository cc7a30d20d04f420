"""One episode: what a turn does, when the episode ends and what it is worth.

Knows nothing of HTTP, leases or repeated requests (the server's dispatcher does), and nothing of a model: it is told
facts about each generation.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

from agenthub.codec import encode, trajectory_hash
from agenthub.episodes.boxes import Boxes
from agenthub.episodes.ending import Ending, lost_by, outcome_reward, record_of
from agenthub.episodes.forking import check_turn, copies, copy_of, replayed
from agenthub.episodes.past import FileWrite, Past, Step
from agenthub.episodes.reading import generation_of, lowered, parse
from agenthub.episodes.regaining import NotRegained, Way, regained
from agenthub.episodes.workbench import Workbench
from agenthub.errors import BoxLost, HostFault, UserError, WireError
from agenthub.records import Call, Finish, Message, Observation, Stop, Text, Trajectory, Turn, frozen
from agenthub.registry import registry
from agenthub.renderer import Parsed, TextProtocol
from agenthub.rewards.turns import turn_rewards
from agenthub.sandbox import Sandbox
from agenthub.suites.task import Task
from agenthub.wire import Action, GenerationIn, LimitsIn, StepDone

__all__ = ["Episode", "new_id"]

REMINDER = "Neither a call nor an answer was found in the last turn."
_REMINDED = (Observation(call_id="", parts=(Text(text=REMINDER, channel="notice"),)),)
RESTORED = "The state before this turn was restored."
_KEPT_BYTES = 16 << 20
"""Of files written from outside, for replay; an episode that was given more can be copied live alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """What came of the calls of one turn."""

    observations: tuple[Observation, ...] = ()
    ending: Ending | None = None
    restored: bool = False
    """A box was lost, and the state before the turn is there again."""


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
        self.limits = lowered(task.limits, limits)
        self.trajectory: Trajectory | None = None
        self.parent: str | None = None
        """Id of the episode that this one is a copy of."""
        self.fork_turn: int | None = None
        self._workbench = workbench
        self._protocol: TextProtocol = registry("protocol").load(task.protocol)()
        self._boxes = Boxes(workbench)
        self._steps: list[Step] = []
        self._writes: list[FileWrite] = []
        self._paid: set[str] = set()
        self._opened_at = time.monotonic()
        self.asleep = False
        """Its hub was killed and its sandboxes are not there yet: `resume` comes before anything that uses them."""
        self._fault: NotRegained | None = None

    @property
    def next_turn(self) -> int:
        """Index of the turn that comes next."""
        return len(self._steps)

    @property
    def played(self) -> tuple[Turn, ...]:
        """The turns so far."""
        return tuple(step.turn for step in self._steps)

    @property
    def done(self) -> bool:
        """True once there is a trajectory."""
        return self.trajectory is not None

    @property
    def fork_way(self) -> str:
        """How `fork` makes copies of it as it is: `native`, `replay` or `no`."""
        return self._boxes.fork_way

    async def open(self) -> dict[str, Any]:
        """Start the sandboxes and give the first observation (`wire.EpisodeOpened.observation`).

        Raises:
            UserError: a sandbox or what the task requires cannot be had here.
            HostFault: a start failed on our side. Nothing is left behind in either case.
        """
        try:
            async with asyncio.timeout(self.limits.setup_seconds):
                await self._boxes.start(self.task)
        except TimeoutError:
            raise HostFault(f"the sandboxes did not start within {self.limits.setup_seconds} s") from None
        self._opened_at = time.monotonic()
        self._boxes.keep(self.id)
        return self.observation()

    @classmethod
    def left(
        cls, task: Task, workbench: Workbench, past: Past, *, id: str, group: str, member: int, parent: str | None
    ) -> Episode:
        """An episode whose hub was killed, asleep: its turns are there, its sandboxes are not."""
        episode = cls(task, workbench, id=id, group=group, member=member)
        episode.parent = parent
        episode._take(past)
        episode.asleep = True
        return episode

    async def resume(self, *, kept: bool) -> Way | None:
        """Have the sandboxes again; `kept`: those that were kept are in the state after the last turn.

        Where they cannot be had, the next step ends the episode with outcome `infra_fault`, and None is returned.
        """
        spent = time.monotonic() - self._opened_at
        self.asleep = False
        try:
            self._boxes, way = await regained(self.task, self._workbench, self.past, self.id, kept=kept)
        except NotRegained as fault:
            self._fault = fault
            return None
        self._boxes.keep(self.id)
        # What it took to come back is not the policy's time.
        self._opened_at = time.monotonic() - spent
        return way

    def _take(self, past: Past) -> None:
        """Go on from there."""
        self.limits = past.limits
        self._steps, self._writes = list(past.steps), list(past.writes)
        self._paid = {name for turn in past.turns for name in turn.rewards}
        self._opened_at = time.monotonic() - past.seconds

    def observation(self) -> dict[str, Any]:
        """What the policy is shown before its next turn: the task, and what the last turn showed where there is one."""
        first = {
            "messages": [encode(message) for message in self._messages()],
            "tools": [encode(tool) for tool in self._boxes.tools],
            "protocol": self.task.protocol,
        }
        images = self._boxes.opening_images
        if images:
            first["images"] = [encode(image) for image in images]
        return first | self._shown(self._steps[-1].turn) if self._steps else first

    def _messages(self) -> tuple[Message, ...]:
        """The task's, and what its worlds show before the first turn."""
        said, opening = self.task.messages, self._boxes.opening
        if not opening:
            return said
        return (*said[:-1], replace(said[-1], content=f"{said[-1].content}\n\n{opening}".lstrip()))

    async def step(self, action: Action, *, timeout_s: float | None, generation: GenerationIn | None) -> StepDone:
        """Play one turn. What the policy did wrong is in the answer, never an exception.

        Raises:
            WireError: `episode_done`, or `token_mismatch` for facts about tokens that do not fit; nothing has changed.
        """
        if self.trajectory is not None:
            raise WireError("episode_done", 410, f"episode {self.id} has ended: {self.trajectory.stop}")
        started = time.monotonic()
        turn = self._read(action, generation)
        if self._fault is not None:
            ran = _Ran(ending=lost_by(self._fault))
        elif self._seconds_left() <= 0:
            ran = _Ran(ending=Ending(Stop.OUT_OF_TIME))
        else:
            ran = await self._run(turn.calls, timeout_s)
        ending = ran.ending or self._ending(turn, generation)
        turn = self._shown_to(turn, ran.observations, ending)
        rewards = turn_rewards(self.task, turn, self._paid)
        if ending is not None:
            turns, limit_s = (*self.played, turn), self.limits.verify_seconds
            outcome = await outcome_reward(self.task, turns, ending, self._boxes, self._workbench, limit_s)
            rewards = rewards if outcome is None else {**rewards, "outcome": outcome}
        turn = self._keep(turn, rewards, started, timeout_s, restored=ran.restored)
        if ending is not None:
            await self._finish(ending)
        return self._answer(turn)

    def step_now(self, action: Action, *, timeout_s: float | None, generation: GenerationIn | None) -> StepDone | None:
        """`step`, where nothing has to be waited for: no sandbox takes its time and the episode goes on after the turn.

        None where that is not so; nothing has changed then. Raises as `step` does.
        """
        if self.trajectory is not None or self._fault is not None or self.asleep:
            return None
        immediate = self._boxes.immediate
        if action.calls and not immediate:
            return None
        started = time.monotonic()
        turn = self._read(action, generation)
        if (turn.calls and not immediate) or self._seconds_left() <= 0 or self._ending(turn, generation) is not None:
            return None
        turn = self._shown_to(turn, self._boxes.run_now(turn.calls), None)
        rewards = turn_rewards(self.task, turn, self._paid)
        return self._answer(self._keep(turn, rewards, started, timeout_s))

    def _read(self, action: Action, generation: GenerationIn | None) -> Turn:
        """The turn as the policy meant it. Raises WireError."""
        record = generation_of(generation)
        parsed = parse(self._protocol, action)
        return Turn(
            index=self.next_turn,
            generation=record,
            text=parsed.text,
            calls=self._calls(parsed, action),
            answer=parsed.answer,
            parse_error=parsed.parse_error,
        )

    def _shown_to(self, turn: Turn, observations: tuple[Observation, ...], ending: Ending | None) -> Turn:
        """The turn with what it shows, a reminder where that is due."""
        if ending is None and not turn.calls and self.task.on_no_call == "remind":
            observations = _REMINDED
        return replace(turn, observations=observations) if observations else turn

    def _keep(
        self, turn: Turn, rewards: dict[str, float], started: float, timeout_s: float | None, restored: bool = False
    ) -> Turn:
        """Add a whole turn to the episode; `started` is of the monotonic clock."""
        now = time.monotonic()
        turn = replace(turn, rewards=frozen(rewards), seconds=now - started)
        self._steps.append(Step(turn=turn, timeout_s=timeout_s, at_s=now - self._opened_at, restored=restored))
        return turn

    async def cancel(self) -> Trajectory:
        """End the episode now, without a reward. Safe to call again."""
        return self.trajectory or await self._finish(Ending(Stop.CANCELLED))

    async def read_file(self, path: str) -> bytes:
        """A file of the first sandbox's workspace. Raises as `Sandbox.read_file` does."""
        return await self._workspace().read_file(path)

    async def write_file(self, path: str, data: bytes) -> FileWrite:
        """Write a file into the first sandbox's workspace; what is kept of it. Raises as `Sandbox.write_file` does."""
        await self._workspace().write_file(path, data)
        kept = sum(len(write.data or b"") for write in self._writes) + len(data) <= _KEPT_BYTES
        self._writes.append(FileWrite(turn=self.next_turn, path=path, data=data if kept else None))
        return self._writes[-1]

    @property
    def last(self) -> Step:
        """The last step played. There is one."""
        return self._steps[-1]

    @property
    def past(self) -> Past:
        """What the episode has been through."""
        spent = time.monotonic() - self._opened_at
        return Past(steps=tuple(self._steps), writes=tuple(self._writes), limits=self.limits, seconds=spent)

    async def fork(self, count: int, turn: int | None = None) -> list[Episode]:
        """`count` copies of the episode as it was before the step of turn `turn`; None is as it is now.

        Each is an episode of its own from there: state of the sandboxes, turns with their rewards, and what is left of
        the limits are the same. They are members 0 to `count` - 1 of a new group. A copy of an earlier turn, or of
        sandboxes that cannot be copied live, is made by replay.

        Raises:
            ForkRefused: there is no such turn, the episode has ended there, or a copy would not be sound.
            WireError: 409 `not_deterministic`: a replay showed something else.
            HostFault: our side failed, or what promises to be deterministic was not. No copy is left behind.
        """
        live = None if self.done or turn not in (None, self.next_turn) else self._boxes
        if live is not None and self._fault is not None:
            raise self._fault
        return await self.of_past(
            self.task, self._workbench, self.past, count, turn, parent=self.id, group=self.group, live=live
        )

    @classmethod
    async def of_past(
        cls,
        task: Task,
        workbench: Workbench,
        past: Past,
        count: int,
        turn: int | None,
        *,
        parent: str,
        group: str,
        live: Boxes | None = None,
    ) -> list[Episode]:
        """`fork` of the episode `parent` of `group` by its past; its end can be had only from its `live` sandboxes."""
        at = len(past.steps) if turn is None else turn
        check_turn(parent, at, len(past.steps), live=live is not None)
        past = past.until(at)
        own_group = f"{group}@{at}-{secrets.token_hex(4)}"
        made = []
        for member, own in enumerate(await copies(task, workbench, past, count, live)):
            episode = cls(task, workbench, id=new_id(), group=own_group, member=member)
            episode.parent, episode.fork_turn = parent, at
            episode._take(past)
            episode._boxes = own
            own.keep(episode.id)
            made.append(episode)
        return made

    def _workspace(self) -> Sandbox:
        if self._fault is not None:
            raise self._fault
        sandbox = self._boxes.workspace
        if sandbox is None:
            raise UserError(
                f"task {self.task.key} has no sandbox with files" if not self.done else "the episode has ended"
            )
        return sandbox

    def _calls(self, parsed: Parsed, action: Action) -> tuple[Call, ...]:
        given = [call.id for call in action.calls] if action.calls else []
        first = next((tool.name for tool in self._boxes.tools), "")
        made = []
        for position, call in enumerate(parsed.calls):
            identity = (given[position] if position < len(given) else None) or f"{self.next_turn}.{position}"
            made.append(Call(id=identity, tool=call.tool or first, arguments=frozen(call.arguments)))
        return tuple(made)

    async def _run(self, calls: tuple[Call, ...], timeout_s: float | None) -> _Ran:
        """Run the calls within the turn's time; a lost box ends the episode, or the state before is had again."""
        if not calls:
            return _Ran()
        restorable = self.task.on_lost == "restore" and self._restores_left > 0
        checkpoint = await copy_of(self._boxes, self.limits) if restorable else None
        try:
            budget = min(self.limits.turn_seconds, timeout_s or self.limits.turn_seconds, self._seconds_left())
            shown = await self._boxes.run(calls, budget)
            if shown.lost is None:
                return _Ran(observations=shown.observations)
            if isinstance(shown.lost, HostFault) or not restorable:
                return _Ran(observations=shown.observations, ending=lost_by(shown.lost))
            kept, checkpoint = checkpoint, None
            return await self._restore(shown.observations, shown.lost, kept)
        finally:
            if checkpoint is not None:
                await asyncio.shield(checkpoint.close())

    async def _restore(self, shown: tuple[Observation, ...], lost: BoxLost, checkpoint: Boxes | None) -> _Ran:
        """Go back to the state before the turn; where that cannot be had, the episode ends."""
        await self._boxes.close()
        try:
            self._boxes = checkpoint or await replayed(self.task, self._workbench, self.past)
        except HostFault as fault:
            return _Ran(observations=shown, ending=lost_by(fault))
        except UserError as refused:
            why = f"{lost}; the state before the turn could not be restored: {refused}"
            return _Ran(observations=shown, ending=lost_by(BoxLost(why)))
        self._boxes.keep(self.id)
        told = Text(text=RESTORED, channel="notice")
        last = replace(shown[-1], parts=(*shown[-1].parts, told))
        return _Ran(observations=(*shown[:-1], last), restored=True)

    @property
    def _restores_left(self) -> int:
        return self.task.max_restores - sum(step.restored for step in self._steps)

    def _ending(self, turn: Turn, generation: GenerationIn | None) -> Ending | None:
        """The first rule that ends the episode after this turn; None where it goes on."""
        if turn.answer is not None:
            return Ending(Stop.ANSWERED)
        if self._boxes.over:
            return Ending(Stop.ANSWERED, reason=self._boxes.over)
        if generation and _no_room(generation, self.limits.max_tokens):
            return Ending(Stop.OUT_OF_TOKENS)
        if not turn.calls and self.task.on_no_call == "end":
            return Ending(Stop.NO_CALL)
        if turn.index + 1 >= self.limits.max_turns:
            return Ending(Stop.OUT_OF_TURNS)
        if self._seconds_left() <= 0:
            return Ending(Stop.OUT_OF_TIME)
        return None

    async def _finish(self, ending: Ending) -> Trajectory:
        record = record_of(self.task, ending, self.played)
        if images := self._boxes.opening_images:
            shown = [encode(image) for image in images]
            record = replace(record, metadata=frozen({**record.metadata, "opening_images": shown}))
        self.trajectory = replace(
            record, group=self.group, member=self.member, parent=self.parent, fork_turn=self.fork_turn
        )
        await asyncio.shield(self._boxes.close())
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
        if self._fault is not None:
            info["detail"] = self._fault.detail
        return StepDone(
            episode=self.id,
            turn=turn.index,
            observation=self._shown(turn),
            reward=None if end is not None and end.reward is None else turn.reward,
            rewards=dict(turn.rewards),
            terminated=end is not None and not end.stop.truncated,
            truncated=end is not None and end.stop.truncated,
            info=info,
        )

    def _shown(self, turn: Turn) -> dict[str, Any]:
        return {"text": self._protocol.show(turn.observations), "observations": encode(turn.observations)}

    def _seconds_left(self) -> float:
        return self.limits.episode_seconds - (time.monotonic() - self._opened_at)


def _no_room(generation: GenerationIn, most: int) -> bool:
    """The episode's tokens are spent, or the model's own context had no room for a single one."""
    spent = generation.prompt_tokens + generation.completion_tokens >= most
    return spent or (generation.finish is Finish.LENGTH and generation.completion_tokens == 0)


def new_id() -> str:
    """An episode id that nobody can guess."""
    return f"ep-{secrets.token_hex(12)}"
