"""What a suite says of a task: prompt, target, limits, verifier, oracle."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agenthub.config import ConfigModel
from agenthub.suites.schema.boxes import FileIn, SandboxIn, ToolIn
from agenthub.suites.schema.values import Count, Name, Seconds, names

__all__ = [
    "CheckIn",
    "LimitsIn",
    "MessageIn",
    "PromptIn",
    "SolutionIn",
    "TargetIn",
    "TaskIn",
    "TurnCheckIn",
    "VerifierIn",
]


class MessageIn(ConfigModel):
    """A chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class PromptIn(ConfigModel):
    """`user`, or `messages`; before them `system`, or what the protocol says about its syntax where it is absent."""

    not_built: ClassVar[frozenset[str]] = names("instruction_file choices template")

    system: str | None = None
    """An empty string is no system message."""
    user: str | None = None
    messages: tuple[MessageIn, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.user is not None and self.messages:
            raise ValueError("has both user and messages; give one of them")
        if self.system is not None and any(message.role == "system" for message in self.messages):
            raise ValueError("has system and a message with role system; give one of them")
        return self


class TargetIn(ConfigModel):
    """What is expected; never leaves the hub."""

    answer: Any = None
    answers: tuple[Any, ...] = ()
    """Any one of them will do."""
    hidden: Literal[True] = True

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.answer is not None and self.answers:
            raise ValueError("has both answer and answers; give one of them")
        return self


class LimitsIn(ConfigModel):
    """Limits of an episode; each absent one has the default of `suites.task.TaskLimits`."""

    not_built: ClassVar[frozenset[str]] = names("tool_calls budget")

    max_turns: Count | None = None
    max_tokens: Count | None = None
    turn_seconds: Seconds | None = None
    episode_seconds: Seconds | None = None
    setup_seconds: Seconds | None = None
    verify_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        turn, episode = self.turn_seconds, self.episode_seconds
        if turn is not None and episode is not None and turn > episode:
            raise ValueError(f"turn_seconds {turn:g} is more than episode_seconds {episode:g}")
        tokens, turns = self.max_tokens, self.max_turns
        if tokens is not None and turns is not None and turns > tokens:
            raise ValueError(f"max_turns {turns} is more than max_tokens {tokens}: a turn is at least one token")
        return self


class CheckIn(ConfigModel):
    """One check of the verifier."""

    not_built: ClassVar[frozenset[str]] = names("getter expected options feedback")

    uses: str
    id: Name | None = None
    """`uses` where absent."""
    args: dict[str, Any] = Field(default_factory=dict)
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    required: bool = False


class VerifierIn(ConfigModel):
    """How a finished episode is scored."""

    not_built: ClassVar[frozenset[str]] = names(
        "mode image env resources network user timeout pre collect artifacts infeasible range success_threshold metrics"
    )

    checks: tuple[CheckIn, ...] = ()
    combine: Literal["weighted", "min", "mean", "and", "or", "first"] = "weighted"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if self.checks and self.combine == "weighted" and not any(check.weight for check in self.checks):
            raise ValueError("every check has weight 0")
        return self


class TurnCheckIn(ConfigModel):
    """A reward component of single turns."""

    uses: str
    reward: Annotated[float, Field(allow_inf_nan=False)]
    name: Name | None = None
    """`uses` where absent; `outcome` is the verifier's."""
    args: dict[str, Any] = Field(default_factory=dict)
    first_only: bool = False


class SolutionIn(ConfigModel):
    """The oracle: the text of each turn that wins."""

    not_built: ClassVar[frozenset[str]] = names("path env")

    kind: Literal["turns"] = "turns"
    turns: tuple[str, ...] = ()


class TaskIn(ConfigModel):
    """A task, or the defaults of all tasks: the same keys."""

    not_built: ClassVar[frozenset[str]] = names(
        "version name description tags difficulty category env seed steps setup teardown observation action lean"
    )

    id: Name | None = None
    split: Name | None = None
    prompt: PromptIn = PromptIn()
    protocol: str | None = None
    tools: tuple[ToolIn, ...] = ()
    target: TargetIn = TargetIn()
    limits: LimitsIn = LimitsIn()
    on_no_call: Literal["end", "remind", "ignore"] = "end"
    turn_checks: tuple[TurnCheckIn, ...] = ()
    verifier: VerifierIn = VerifierIn()
    solution: SolutionIn = SolutionIn()
    sandbox: SandboxIn = SandboxIn()
    files: tuple[FileIn, ...] = ()
    deterministic: bool = True
    metadata: dict[str, Any] = Field(default_factory=dict)
    x: dict[str, Any] = Field(default_factory=dict)
    origin: dict[str, Any] = Field(default_factory=dict)
