"""The protocols of the trainer's plug-ins. A plug-in is a config dataclass plus a pure function over a Batch.

Order of one update: shaping -> filter -> credit (sees `batch.in_stats`) -> correction (sees `batch.advantages`) ->
loss (sees `batch.in_loss` less what the correction took out) -> aggregate. State, where a plug-in has any, lives only
in its `state_dict()`, or for a loss in what `start` and `advance` return.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_type_hints, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from agenthub.errors import ConfigError, nearest
from agenthub.records import frozen
from agenthub.registry import registry
from agenthub.trainers.types import Batch, Bools, Doubles, Filtered, Reason

if TYPE_CHECKING:
    from torch import Tensor

    from agenthub.trainers.aggregate import Term

__all__ = [
    "NEEDS",
    "Correction",
    "Credit",
    "Filter",
    "LeavesOut",
    "Loss",
    "LossState",
    "Measures",
    "MeasuresReturns",
    "Remembers",
    "Shaping",
    "lacking",
    "make",
    "needs_of",
]

NEEDS: Mapping[str, str] = {
    "entropies": "a policy that tells the entropies of its tokens",
    "experts": "recorded trajectories to learn from; set experts: {source: oracle}",
    "first_state_logsumexp": "the logits of the trained model",
    "fork": "episodes that are forked: a rollout that branches; set strategy: {uses: turn_values}",
    "ref": "a reference model; set reference: initial",
    "sum_pi_sq": "the logits of the trained model",
    "teacher": "a teacher; set teacher to a model directory",
    "value": "a critic; set critic: {}",
}
"""What a plug-in may need beyond log-probabilities, and what gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossState:
    """What a loss is told beside the batch."""

    step: int = 0
    """Updates done."""
    values: Mapping[str, float] = field(default_factory=frozen)
    """The loss's own state, from its `start` and `advance`."""
    logsumexp: Tensor | None = None
    """f32[T], with gradient, of the logits before each token in the loss; None where it was not asked for."""


class Shaping(Protocol):
    """Adds a named component to the rewards, from what the trainer alone knows."""

    def component(self, batch: Batch) -> Doubles:
        """f64[N]: to be added to `rewards`."""


class Filter(Protocol):
    """Says which tokens train, which trajectories count in their group, and why the others do not."""

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons; nothing leaves the loss without a reason."""


class Credit(Protocol):
    """Advantage estimator."""

    group_centred: ClassVar[bool]
    """Equal rewards give 0, and so does a group of one."""
    needs: ClassVar[frozenset[str]]
    """Of NEEDS."""

    def advantage(self, batch: Batch) -> Doubles:
        """f64[T]: 0 off the action tokens. Group statistics are over trajectories that are `in_stats`."""


@runtime_checkable
class MeasuresReturns(Protocol):
    """A credit estimator with a critic."""

    def returns(self, batch: Batch) -> Doubles:
        """f64[T]: what the critic should have said; 0 off the action tokens."""


@runtime_checkable
class Remembers(Protocol):
    """A credit estimator whose baseline is what earlier updates were like."""

    def observe(self, batch: Batch) -> None:
        """Take note of a finished batch."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next advantages depend on beside the batch, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


@runtime_checkable
class LeavesOut(Protocol):
    """A credit estimator that says which tokens of a tree train."""

    def leaves_out(self, batch: Batch) -> Mapping[Reason, Bools]:
        """By reason, bool[T]: tokens that leave the loss beside what the filter took out."""


@runtime_checkable
class Measures(Protocol):
    """A plug-in that counts how often its mechanism fired."""

    def metrics(self, batch: Batch) -> Mapping[str, float]:
        """Named numbers for the update's metrics."""


class Correction(Protocol):
    """Weighs tokens for the gap between the weights that sampled them and those that train."""

    def weights(self, batch: Batch) -> tuple[Doubles, Bools]:
        """(weights f64[T], tokens that stay in the loss bool[T]); 1 and True off the action tokens."""


class Loss(Protocol):
    """Policy loss."""

    needs: ClassVar[frozenset[str]]
    """What the forward pass must give beyond log-probabilities, of NEEDS; empty for most."""
    inert_at_zero: ClassVar[bool]
    """A token whose advantage is 0 adds neither loss nor gradient, so its log-probability need not be computed."""
    reinforce_at_one: ClassVar[bool]
    """With a ratio of 1 and a weight of 1 its gradient is REINFORCE's."""
    corrects: ClassVar[bool]
    """It weighs with the rollout's own probabilities itself, so that a correction would count twice."""

    def start(self) -> dict[str, float]:
        """The state before the first update; empty for most."""

    def advance(self, state: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after an optimiser step with these metrics."""

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: LossState) -> Sequence[Term]:
        """Token losses with their mask, aggregation and coefficient.

        Args:
            lp: f32[T], log-probabilities with gradient at `batch.in_loss`, 0 elsewhere; where the loss is
                `inert_at_zero` also 0 at tokens whose advantage is 0.
            A: f32[T], advantages; detached.
            w: f32[T], off-policy weights; detached, 1 where there is no correction.
        """


def make(kind: str, uses: str, options: Mapping[str, Any], where: str = "") -> Any:
    """The plug-in of that kind and name with these options.

    Raises:
        UnknownName: nothing has that name.
        ConfigError: an option is unknown, of the wrong type, or its value cannot be used.
    """
    cls = registry(kind).load(uses, where)
    known = [spec.name for spec in dataclasses.fields(cls) if spec.init] if dataclasses.is_dataclass(cls) else []
    for key in options:
        if key not in known:
            raise ConfigError(where, f"{kind} {uses!r} has no option {key!r}{nearest(key, known)}")
    hints = get_type_hints(cls) if options else {}
    try:
        return cls(**{key: _typed(key, value, hints[key]) for key, value in options.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(where, f"{kind} {uses!r}: {error}") from error


def _typed(key: str, value: Any, hint: Any) -> Any:
    """The value as the option's type has it: a list for a tuple and an integer for a float will do, no more.

    Raises:
        ValueError: it is of another type.
    """
    try:
        # As JSON: strict there takes a list for a tuple, and still no text for a number.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        expected = "; ".join(dict.fromkeys(fault["msg"] for fault in error.errors()))
        raise ValueError(f"{key} is {value!r}: {expected}") from error


def needs_of(*plugins: Any) -> frozenset[str]:
    """What these plug-ins need together."""
    return frozenset().union(*(getattr(plugin, "needs", frozenset()) for plugin in plugins))


def lacking(kind: str, uses: str, plugin: Any, provided: Collection[str]) -> str | None:
    """What keeps a plug-in from working where only `provided` is there, as a sentence; None where nothing does."""
    missing = sorted(getattr(plugin, "needs", frozenset()) - set(provided))
    if not missing:
        return None
    return f"{kind} {uses!r} needs {'; and '.join(NEEDS.get(need, need) for need in missing)}"
