"""The records of an episode: what was generated, called, seen, rewarded, and how it ended.

Frozen, keyword-only, slotted dataclasses that are checked when they are made. Token arrays are read-only numpy arrays.
This module owns their shape and meaning; `codec` turns them into JSON and back and hashes them.

Axes in names: A action tokens of one generation, P prompt tokens of one generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Blob",
    "Call",
    "Finish",
    "Floats",
    "Generation",
    "ImageRef",
    "Ints",
    "Message",
    "Observation",
    "Outcome",
    "Part",
    "Stop",
    "Text",
    "Trajectory",
    "Turn",
    "floats",
    "frozen",
    "ints",
]

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


def ints(values: Iterable[int] | Ints) -> Ints:
    """A read-only int32 copy of `values`.

    Raises:
        ValueError: a value does not fit, or the values are not one-dimensional.
    """
    source = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    if source.size and source.dtype.kind not in "iu":
        raise ValueError(f"token ids must be integers, not {source.dtype}")
    if source.size and (source.min() < np.iinfo(np.int32).min or source.max() > np.iinfo(np.int32).max):
        raise ValueError("a token id does not fit into 32 bits")
    return _read_only(source.astype(np.int32))


def floats(values: Iterable[float] | Floats) -> Floats:
    """A read-only float32 copy of `values`.

    Raises:
        ValueError: the values are not one-dimensional numbers.
    """
    return _read_only(np.array(values if isinstance(values, np.ndarray) else list(values), dtype=np.float32))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 1:
        raise ValueError(f"expected one axis, got shape {array.shape}")
    array.flags.writeable = False
    return array


def frozen(mapping: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A read-only copy of a mapping (the values are not copied)."""
    return MappingProxyType(dict(mapping or {}))


class Finish(StrEnum):
    """Why the policy stopped sampling a turn."""

    STOP = "stop"
    """A stop token or the end of a complete action."""
    LENGTH = "length"
    """The token budget of the turn or the episode was spent."""
    ABORT = "abort"
    """The engine gave up on the request; the turn is not to be scored."""


class Stop(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    """The policy gave a final answer, or its action finished the task; terminated in Gymnasium's sense."""
    NO_CALL = "no_call"
    """A turn had neither a call nor an answer, and the suite says `on_no_call: end`; terminated."""
    SANDBOX_LOST = "sandbox_lost"
    """A box ended in the middle of the episode; terminated."""
    OUT_OF_TURNS = "out_of_turns"
    """The turn budget is spent; truncated."""
    OUT_OF_TOKENS = "out_of_tokens"
    """The token budget is spent; truncated."""
    OUT_OF_TIME = "out_of_time"
    """The episode's seconds are spent; truncated."""
    CANCELLED = "cancelled"
    """The client ended the episode or let its lease run out; truncated, and never scored: reward None."""

    @property
    def truncated(self) -> bool:
        """True where a limit from outside the task ended the episode (Gymnasium's `truncated`)."""
        return self in (Stop.OUT_OF_TURNS, Stop.OUT_OF_TOKENS, Stop.OUT_OF_TIME, Stop.CANCELLED)


class Outcome(StrEnum):
    """Whose doing the end of an episode was; only `ok` and `model_fault` carry a reward."""

    OK = "ok"
    MODEL_FAULT = "model_fault"
    """The policy's own limit, signal or exit killed the box; scored like any failure."""
    ENV_FAULT = "env_fault"
    """The task is broken; reward None, the task is quarantined."""
    INFRA_FAULT = "infra_fault"
    """Evidence from our side of a failure of ours; reward None, the member is played again."""

    @property
    def scored(self) -> bool:
        """True where the trajectory carries a reward."""
        return self in (Outcome.OK, Outcome.MODEL_FAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message of a task's prompt."""

    role: str
    """system, user or assistant."""
    content: str

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise ValueError(f"role is {self.role!r}; expected system, user or assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A part of an observation that is text."""

    text: str
    channel: str = "output"
    """Where it came from, in the tool's own words: output, error, value, notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """A part of an observation that is an image, kept by content."""

    sha256: str
    media_type: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    position: int | None = None
    """Index of the image's first placeholder token in the prompt; None where no prompt holds it."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"an image has {self.width} x {self.height} pixels; expected 1 or more of each")
        if self.position is not None and self.position < 0:
            raise ValueError(f"an image's position is {self.position}; expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A part of an observation that is neither text nor an image, kept by content."""

    sha256: str
    media_type: str
    bytes: int
    name: str = ""


Part = Text | ImageRef | Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a policy sampled for one turn; never tokenised again."""

    policy: str
    """Name of the policy within the episode; only named policies are trained."""
    prompt_ids: Ints
    """i32[P]: everything the engine consumed before the first sampled token."""
    ids: Ints
    """i32[A]: the sampled tokens that were kept, stop token included where there is one."""
    logprobs: Floats
    """f32[A]: log-probability of each kept token under the sampling distribution at its temperature."""
    versions: tuple[tuple[int, int], ...]
    """((offset, weight_version), ...): from token `offset` on, these weights; starts at offset 0 unless A is 0."""
    finish: Finish
    entropies: Floats | None = None
    """f32[A]: entropy in nats of each token's distribution; None where the engine does not tell."""
    images: tuple[ImageRef, ...] = ()
    dropped: int = 0
    """Sampled tokens after the cut that were not kept."""

    def __post_init__(self) -> None:
        for name, array, dtype in (("prompt_ids", self.prompt_ids, np.int32), ("ids", self.ids, np.int32)):
            if array.dtype != dtype or array.ndim != 1 or array.flags.writeable:
                raise ValueError(f"generation.{name} must be a read-only {np.dtype(dtype)} vector; use records.ints")
        if any(image.position is not None and image.position >= self.prompt_ids.size for image in self.images):
            raise ValueError("generation.images: a position is not in the prompt")
        if (self.ids.size and int(self.ids.min()) < 0) or (self.prompt_ids.size and int(self.prompt_ids.min()) < 0):
            raise ValueError("generation: a token id is negative")
        for name, values in (("logprobs", self.logprobs), ("entropies", self.entropies)):
            if values is None:
                continue
            if values.dtype != np.float32 or values.shape != self.ids.shape or values.flags.writeable:
                raise ValueError(
                    f"generation.{name} must be a read-only float32 vector with one value a token: "
                    f"{values.shape[0] if values.ndim else 0} values for {self.ids.shape[0]} ids"
                )
            if not np.isfinite(values).all():
                bad = int(np.flatnonzero(~np.isfinite(values))[0])
                raise ValueError(f"generation.{name}[{bad}] is {values[bad]}, not finite")
        if self.logprobs.size and float(self.logprobs.max()) > 1e-4:
            raise ValueError("generation.logprobs: a log-probability is above 0")
        offsets = [offset for offset, _ in self.versions]
        if self.ids.size and (not offsets or offsets[0] != 0):
            raise ValueError("generation.versions must start at offset 0")
        if offsets != sorted(set(offsets)) or (offsets and offsets[-1] > max(self.ids.size - 1, 0)):
            raise ValueError("generation.versions: offsets must rise and stay within the tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call that a turn asked for."""

    id: str
    """Unique within the episode: `{turn}.{position}`, or the id that the policy's syntax gave."""
    tool: str
    arguments: Mapping[str, Any]
    """JSON values by argument name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one call showed."""

    call_id: str
    """The call's id; empty for a notice of the hub's own (a reminder, an unknown tool)."""
    parts: tuple[Part, ...]
    failed: bool = False
    """The program or tool reported an error. A fact about the world, not about our side."""
    truncated: bool = False
    """Output was cut; the parts say where and how much."""
    sha256: str = ""
    """Hash of the whole content before the cut, for replay; empty where nothing was hidden by a cut."""

    @property
    def text(self) -> str:
        """The text parts, one after the other."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One action of the policy and what came of it."""

    index: int
    generation: Generation | None
    """None where the policy has no tokens (scripted, a stranger's trainer that told none)."""
    text: str
    calls: tuple[Call, ...] = ()
    answer: str | None = None
    parse_error: str | None = None
    """Why the text could not be read as an action; None where it could."""
    observations: tuple[Observation, ...] = ()
    rewards: Mapping[str, float] = field(default_factory=frozen)
    """Components of this turn by name; the last turn also holds `outcome`."""
    seconds: float = 0.0
    """Wall seconds that the hub spent on the turn; 0.0 where it is not known."""

    @property
    def reward(self) -> float:
        """The step's reward: the sum of its components."""
        return float(sum(self.rewards.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One finished episode."""

    task: str
    """`suite/task-id`."""
    group: str
    """Trajectories of one group answer the same task and are compared with each other."""
    member: int
    turns: tuple[Turn, ...]
    stop: Stop
    outcome: Outcome
    rewards: Mapping[str, float]
    """Components summed over the turns, by name."""
    reward: float | None
    """Sum of the components; None where the outcome carries no reward, or the episode was cancelled."""
    reason: str = ""
    """What the verifier or the fault said, in one line."""
    parent: str | None = None
    """What this one was forked from: the id of a hub's episode, or `group[member]` in a rollout."""
    fork_turn: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=frozen)
    """Facts for reports (task kind, difficulty, seed); no stage decides by them."""

    def __post_init__(self) -> None:
        scored = self.outcome.scored and self.stop is not Stop.CANCELLED
        if scored != (self.reward is not None):
            raise ValueError(f"outcome {self.outcome}, stop {self.stop} and reward {self.reward} contradict each other")
        if self.reward is not None:
            total = sum(turn.reward for turn in self.turns)
            if abs(total - self.reward) > 1e-6 * max(1.0, abs(total)):
                raise ValueError(f"the step rewards sum to {total}, the trajectory's reward is {self.reward}")
