"""The wire models of HTTP version 1: what a client sends and what the hub answers.

Requests forbid unknown fields, and numbers are numbers: neither `true` nor `"1"` is one. What is unknown in a response
is ignored, so that an older client reads a newer hub.
The same models are the bodies of the routes, the `params` of WebSocket frames and the lines of NDJSON.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, model_validator

from agenthub.records import Finish

__all__ = [
    "Action",
    "Batch",
    "CallIn",
    "CreateEpisodes",
    "EpisodeOpened",
    "EpisodeState",
    "EpisodesCreated",
    "ErrorBody",
    "GenerationIn",
    "Heartbeat",
    "LimitsIn",
    "StepDone",
    "StepIn",
    "StepLate",
    "StepOf",
]

MAX_TURN_SECONDS = 3600.0


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CallIn(_In):
    """One tool call of an action."""

    tool: str | None = Field(default=None, max_length=200, description="null is the task's first tool")
    arguments: dict[str, Any] = Field(default_factory=dict)
    id: str | None = Field(default=None, max_length=200)


class Action(_In):
    """Exactly one of text, calls or answer; calls may come with the text that they were read from."""

    text: str | None = Field(default=None, description="read in the hub by the task's text protocol")
    calls: list[CallIn] | None = Field(default=None, max_length=64)
    answer: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Action:
        if self.text is None and self.calls is None and self.answer is None:
            raise ValueError("an action needs text, calls or answer")
        if self.calls is not None and self.answer is not None:
            raise ValueError("an action has calls or an answer, not both")
        return self


class ImageIn(_In):
    """An image of a prompt: a blob of the hub's, and where in the prompt its placeholder tokens begin."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    media_type: Literal["image/png", "image/webp", "image/jpeg"]
    width: StrictInt = Field(ge=1, le=16_384)
    height: StrictInt = Field(ge=1, le=16_384)
    position: StrictInt | None = Field(default=None, ge=0)


class GenerationIn(_In):
    """What the hub is told of the tokens of a turn; with ids it checks and stores them."""

    finish: Finish
    prompt_tokens: StrictInt = Field(ge=0)
    completion_tokens: StrictInt = Field(ge=0)
    weight_version: StrictInt = Field(default=0, ge=0)
    policy: str = Field(default="policy", max_length=200)
    prompt_ids: list[StrictInt] | None = None
    ids: list[StrictInt] | None = None
    logprobs: list[StrictFloat] | None = None
    images: list[ImageIn] = Field(default_factory=list, max_length=1024)


class LimitsIn(_In):
    """Limits lower than the task's own; higher ones are refused."""

    max_turns: StrictInt | None = Field(default=None, ge=1)
    max_tokens: StrictInt | None = Field(default=None, ge=1)
    turn_seconds: StrictFloat | None = Field(default=None, gt=0, le=MAX_TURN_SECONDS)
    episode_seconds: StrictFloat | None = Field(default=None, gt=0)


class CreateEpisodes(_In):
    """Body of POST /v1/episodes: `task`, or `seed` (with `split`) to let the hub draw one."""

    request_id: str = Field(min_length=1, max_length=200)
    suite: str = Field(max_length=200)
    task: str | None = Field(default=None, max_length=200)
    seed: StrictInt | None = Field(default=None, ge=0)
    split: str | None = Field(default=None, max_length=200)
    count: StrictInt = Field(default=1, ge=1, le=1024)
    group: str | None = Field(default=None, max_length=200)
    first_member: StrictInt = Field(
        default=0, ge=0, description="member of the first episode, for playing a lost member again"
    )
    limits: LimitsIn | None = None
    lease_s: StrictFloat = Field(default=60.0, gt=0, le=86400)

    @model_validator(mode="after")
    def _task_or_seed(self) -> CreateEpisodes:
        if (self.task is None) == (self.seed is None):
            raise ValueError("give exactly one of task and seed")
        return self


class StepIn(_In):
    """Body of POST /v1/episodes/{id}/step."""

    turn: StrictInt = Field(ge=0)
    action: Action
    timeout_s: StrictFloat | None = Field(default=None, gt=0, le=MAX_TURN_SECONDS)
    generation: GenerationIn | None = None


class StepOf(StepIn):
    """One step of a batch: the step and its episode."""

    episode: str = Field(max_length=200)


class Batch(_In):
    """Body of POST /v1/steps; answered as NDJSON, a line per step as it finishes."""

    steps: list[StepOf] = Field(min_length=1, max_length=4096)
    deadline_s: StrictFloat | None = Field(default=None, gt=0, le=MAX_TURN_SECONDS)


class Heartbeat(_In):
    """Body of POST /v1/episodes/{id}/lease."""

    lease_s: StrictFloat = Field(default=60.0, gt=0, le=86400)


class EpisodeOpened(_Out):
    """One new episode."""

    id: str
    member: int
    turn: int = 0
    """The turn that comes next; above 0 in a copy of an episode that had turns."""
    observation: dict[str, Any]
    """{"messages": [{role, content}], "tools": [{name, description, parameters}], "protocol": name}; `images`:
    [ImageRef records] where a world is seen before the first turn; and in a copy also what its last turn showed:
    {"text", "observations"}. An image's bytes are the blob of its hash."""
    info: dict[str, Any] = Field(default_factory=dict)
    """The task's public facts: task, split, limits, metadata, on_no_call; `fork`: how it can be copied (native, replay,
    no); in a copy `parent` and `fork_turn`."""
    lease_expires_s: float


class EpisodesCreated(_Out):
    """Answer to POST /v1/episodes, and to a fork."""

    group: str
    episodes: list[EpisodeOpened]


class StepDone(_Out):
    """Answer to a step. The sum of `reward` over an episode's steps is the trajectory's reward."""

    episode: str = ""
    turn: int
    observation: dict[str, Any]
    """{"text": what the next message to the policy says, "observations": [Observation records]}"""
    reward: float | None
    """None where the outcome carries no reward."""
    rewards: dict[str, float]
    terminated: bool
    truncated: bool
    info: dict[str, Any] = Field(default_factory=dict)
    """Always `calls`, `answer`, `parse_error`; at the end also `stop`, `outcome`, `reason`, `hash`."""


class StepLate(_Out):
    """A step of a batch that was not done by the deadline; it goes on, and the same step again joins it."""

    episode: str
    turn: int
    late: Literal[True] = True


class EpisodeState(_Out):
    """Answer to GET /v1/episodes/{id}."""

    id: str
    group: str
    member: int
    task: str
    turn: int
    """The turn that comes next."""
    done: bool
    stop: str | None = None
    outcome: str | None = None
    reward: float | None = None
    lease_expires_s: float


class ErrorBody(_Out):
    """Every error: {"error": {code, message, detail}}."""

    code: str
    message: str
    detail: Any = None
