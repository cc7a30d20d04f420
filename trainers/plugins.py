"""The protocols of the trainer's plug-ins. A plug-in is a config dataclass plus a pure function over a Batch.

Order of one update: rewards -> filter -> credit (sees `batch.in_stats`) -> loss (sees `batch.in_loss`) -> aggregate.
State, where a plug-in has any, lives only in its `state_dict()`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from agenthub.errors import ConfigError, nearest
from agenthub.records import Floats
from agenthub.registry import registry
from agenthub.trainers.types import Batch, Filtered

if TYPE_CHECKING:
    from torch import Tensor

    from agenthub.trainers.aggregate import Term

__all__ = ["Credit", "Filter", "Loss", "make"]


class Filter(Protocol):
    """Says which tokens train, which trajectories count in their group, and why the others do not."""

    def apply(self, batch: Batch) -> Filtered:
        """Masks and reasons; nothing leaves the loss without a reason."""


class Credit(Protocol):
    """Advantage estimator."""

    group_centred: ClassVar[bool]
    """Equal rewards give 0, and so does a group of one."""

    def advantage(self, batch: Batch) -> Floats:
        """f32[T]: 0 off the action tokens. Group statistics are over trajectories that are `in_stats`."""


class Loss(Protocol):
    """Policy loss."""

    needs: ClassVar[frozenset[str]]
    """What the forward pass must give beyond log-probabilities; empty for most."""
    inert_at_zero: ClassVar[bool]
    """A token whose advantage is 0 adds neither loss nor gradient, so its log-probability need not be computed."""

    def terms(self, lp: Tensor, batch: Batch, A: Tensor, w: Tensor, state: Mapping[str, Any]) -> Sequence[Term]:
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
        ConfigError: an option is unknown or its value cannot be used.
    """
    cls = registry(kind).load(uses, where)
    known = [spec.name for spec in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    for key in options:
        if key not in known:
            raise ConfigError(where, f"{kind} {uses!r} has no option {key!r}{nearest(key, known)}")
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(where, f"{kind} {uses!r}: {error}") from error
