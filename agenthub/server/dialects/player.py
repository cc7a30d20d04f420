"""One client's session: it plays one episode at a time, by the hub's own operations, as that client."""

from __future__ import annotations

import asyncio
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agenthub.codec import decode
from agenthub.errors import UnknownName, WireError
from agenthub.records import Observation
from agenthub.sandbox import ToolSpec
from agenthub.server.answers import Answer
from agenthub.server.params import read
from agenthub.wire import EpisodeOpened, EpisodesCreated, GenerationIn, LimitsIn, StepDone

__all__ = ["ANSWER_TOOL", "Operate", "Player", "Reset", "ToolDone"]

Operate = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]
"""An operation of the hub by its name, as the client of one request. Raises WireError."""

ANSWER_TOOL = ToolSpec(
    name="submit_answer",
    description="Gives the final answer. The episode ends and is scored.",
    parameters={
        "type": "object",
        "properties": {"answer": {"type": "string", "description": "The answer."}},
        "required": ["answer"],
        "additionalProperties": False,
    },
)
"""How a client that can only call tools says its answer."""
_BEATS_PER_LEASE = 4
_SEEDS = 1 << 31
_STATUS = {"infra_fault": 503, "env_fault": 422}


class Reset(BaseModel):
    """What a client may say of the episode that it wants; without task and seed the hub draws a task by chance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int | None = Field(default=None, ge=0)
    task: str | None = Field(default=None, max_length=200)
    split: str | None = Field(default=None, max_length=200)
    episode_id: str | None = Field(default=None, max_length=255, description="the client's own name for the episode")
    group: str | None = Field(default=None, max_length=200)
    member: int = Field(default=0, ge=0)
    limits: LimitsIn | None = None
    lease_s: float | None = Field(default=None, gt=0, le=86400)


class ToolDone(BaseModel):
    """What one tool call came to."""

    model_config = ConfigDict(frozen=True)

    text: str
    failed: bool
    """The program or tool reported an error."""
    step: StepDone

    @property
    def facts(self) -> dict[str, Any]:
        """What a program reads of it: the step's reward, and at the end how the episode ended."""
        step = self.step
        return {
            "episode_id": step.episode,
            "turn": step.turn,
            "text": self.text,
            "failed": self.failed,
            "reward": step.reward,
            "rewards": step.rewards,
            "done": step.terminated or step.truncated,
            "terminated": step.terminated,
            "truncated": step.truncated,
            "stop": step.info.get("stop"),
            "outcome": step.info.get("outcome"),
        }


class Player:
    """At most one open episode of a suite; calls of one session wait for each other."""

    def __init__(self, operate: Operate, suite: str, *, lease_s: float) -> None:
        """`lease_s`: seconds that an episode lives without a sign of its client, unless `reset` says otherwise."""
        self.suite, self.lease_s = suite, lease_s
        self.opened: EpisodeOpened | None = None
        """The last episode; it may have ended."""
        self.name: str | None = None
        """The client's own name for it, or the hub's."""
        self.turn = 0
        self.reward = 0.0
        """Sum of its step rewards so far."""
        self._operate, self._lock, self._open = operate, asyncio.Lock(), False

    @property
    def done(self) -> bool:
        """True where no episode is open."""
        return not self._open

    @property
    def tools(self) -> list[ToolSpec]:
        """The tools of the last episode, and the one that answers."""
        rows = self.opened.observation["tools"] if self.opened else []
        tools = [ToolSpec(**row) for row in rows]
        return tools if any(tool.name == ANSWER_TOOL.name for tool in tools) else [*tools, ANSWER_TOOL]

    async def reset(self, values: Mapping[str, Any]) -> EpisodeOpened:
        """End the open episode and open another; `values` are those of `Reset`.

        Raises:
            WireError: 422 `invalid`, or as the operation `create` refuses.
        """
        asked = read(Reset, dict(values))
        async with self._lock:
            await self._end()
            by_chance = asked.task is None and asked.seed is None
            seed = secrets.randbelow(_SEEDS) if by_chance else asked.seed
            self.lease_s = asked.lease_s or self.lease_s
            limits = None if asked.limits is None else asked.limits.model_dump(exclude_none=True)
            wanted = {
                "request_id": uuid.uuid4().hex,
                "suite": self.suite,
                "task": asked.task,
                "seed": seed,
                "split": asked.split,
                "group": asked.group,
                "first_member": asked.member,
                "limits": limits,
                "lease_s": self.lease_s,
            }
            answer = await self._operate("create", wanted)
            (self.opened,) = EpisodesCreated.model_validate_json(answer.body).episodes
            self.name, self._open = asked.episode_id or self.opened.id, True
            self.turn, self.reward = self.opened.turn, 0.0
            return self.opened

    async def ensure(self) -> EpisodeOpened:
        """The open or last episode; one by chance where there was none. Raises as `reset` does."""
        return self.opened or await self.reset({})

    async def step(
        self,
        action: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        generation: GenerationIn | None = None,
    ) -> StepDone:
        """Play the next turn with an action of the wire.

        Raises:
            WireError: as the operation `step` refuses; 409 `no_episode`: none is open; 503 `infra_fault` and 422
                `env_fault`: the episode has ended so, and there is no reward.
        """
        async with self._lock:
            if self.opened is None or not self._open:
                raise WireError("no_episode", 409, "no episode is open: reset first")
            told = None if generation is None else generation.model_dump(exclude_none=True)
            asked = {
                "episode": self.opened.id,
                "turn": self.turn,
                "action": dict(action),
                "timeout_s": timeout_s,
                "generation": told,
            }
            answer = await self._operate("step", asked)
            done = StepDone.model_validate_json(answer.body)
            self.turn = done.turn + 1
            self.reward += done.reward or 0.0
            self._open = not (done.terminated or done.truncated)
            outcome = done.info.get("outcome")
            if outcome in _STATUS:
                told_why = done.info.get("reason") or "no reason was given"
                raise WireError(
                    outcome,
                    _STATUS[outcome],
                    f"the episode ended without a reward: {outcome}: {told_why}",
                    {"outcome": outcome, "episode": done.episode, "turn": done.turn},
                )
            return done

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> ToolDone:
        """Play a turn that makes one call, or gives the answer.

        Raises:
            UnknownName: the episode has no such tool; nothing was played.
            WireError: as `step`; 422 `invalid`: the answer is no text.
        """
        await self.ensure()
        known = [tool.name for tool in self.tools]
        if name not in known:
            raise UnknownName("tool", name, known)
        if name == ANSWER_TOOL.name and self.tools[-1] is ANSWER_TOOL:
            answer = arguments.get("answer")
            if not isinstance(answer, str) or len(arguments) != 1:
                raise WireError("invalid", 422, f"{name} takes one argument, answer, a string")
            done = await self.step({"answer": answer})
            return ToolDone(text="The episode has ended.", failed=False, step=done)
        done = await self.step({"calls": [{"tool": name, "arguments": dict(arguments)}]})
        shown = [decode(Observation, row) for row in done.observation["observations"]]
        return ToolDone(text="".join(it.text for it in shown), failed=any(it.failed for it in shown), step=done)

    async def beat(self) -> None:
        """Begin the open episode's lease anew; one that is gone is noticed."""
        if self.opened is None or not self._open:
            return
        try:
            await self._operate("lease", {"episode": self.opened.id, "lease_s": self.lease_s})
        except WireError as error:
            if error.status in (404, 410):
                self._open = False

    async def beating(self) -> None:
        """Renew the lease until cancelled."""
        while True:
            await asyncio.sleep(self.lease_s / _BEATS_PER_LEASE)
            await self.beat()

    async def state(self) -> dict[str, Any]:
        """Where the last episode is, as the hub says it; empty where there was none. Raises WireError."""
        if self.opened is None:
            return {}
        answer = await self._operate("state", {"episode": self.opened.id})
        return dict(json.loads(answer.body))

    async def close(self) -> None:
        """End the open episode, the step in progress with it."""
        # Not behind the lock: a step that still runs is what is to be ended.
        await self._end()

    async def _end(self) -> None:
        if self.opened is None or not self._open:
            return
        self._open = False
        try:
            await self._operate("delete", {"episode": self.opened.id})
        except WireError as error:
            if error.status not in (404, 410, 503):
                raise
