"""What plug-ins need of a batch beyond log-probabilities: other models' opinions and moments of the distribution."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agenthub.trainers.critic import Critic
from agenthub.trainers.door import Door
from agenthub.trainers.ranks import ALONE, Ranks
from agenthub.trainers.types import Batch, Bools, Doubles
from agenthub.trainers.view import View

__all__ = ["Models", "Reader", "scored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The models beside the trained one; None where the recipe has none."""

    reference: Any = None
    """Frozen; same tokenizer; a model is taken for its door."""
    teacher: Any = None
    """Frozen; same tokenizer; a model is taken for its door."""
    critic: Critic | None = None

    def __post_init__(self) -> None:
        for name in ("reference", "teacher"):
            model = getattr(self, name)
            if model is not None and not isinstance(model, Door):
                object.__setattr__(self, name, Door(model))

    def provides(self) -> frozenset[str]:
        """What the trained model and these give, of `plugins.NEEDS`."""
        given = {"first_state_logsumexp", "sum_pi_sq", "entropies"}
        beside = {"ref": self.reference, "teacher": self.teacher, "value": self.critic}
        return frozenset(given | {need for need, model in beside.items() if model is not None})

    def fit(self, batch: Batch, returns: Doubles) -> Mapping[str, float]:
        """Let the critic learn the returns, f64[T], of the batch that was scored last; metrics."""
        if self.critic is None:
            return {}
        places = np.flatnonzero(batch.action_mask)
        counted = batch.trajectory_in_stats[batch.trajectory_of_token[places]]
        return {"value_error": self.critic.fit(returns[places], counted)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads a batch with a model, every rank its part, without a gradient."""

    ranks: Ranks = ALONE
    temperature: float = 1.0
    view_tokens: int = 1024
    """Most tokens of one forward pass."""

    def views(self, door: Door, batch: Batch, chosen: Bools) -> list[View]:
        """This rank's part of the chosen tokens, in as many views as every other rank has."""
        size = self.ranks.size
        most = self.view_tokens if size == 1 else min(self.view_tokens, -(-batch.tokens // size))
        return door.views(batch, chosen, max_tokens=most, part=(self.ranks.rank, size))

    @torch.no_grad()
    def scores(self, door: Door, batch: Batch, chosen: Bools) -> dict[str, NDArray[Any]]:
        """lp, logsumexp and sum_pi_sq of the chosen tokens, each f32[T]; 0 elsewhere."""
        names = ("lp", "logsumexp", "sum_pi_sq")
        rows = torch.zeros((len(names), batch.tokens), device=door.device)
        for view in self.views(door, batch, chosen):
            got = door.scores(view, temperature=self.temperature)
            rows[:, view.tokens] = torch.stack([getattr(got, name) for name in names]).to(rows.dtype)
        return dict(zip(names, self.ranks.total(rows).cpu().numpy(), strict=True))

    @torch.no_grad()
    def states(self, door: Door, batch: Batch) -> torch.Tensor:
        """f32[M, width]: the last hidden state before each action token, in order."""
        places = np.flatnonzero(batch.action_mask)
        place = np.full(batch.tokens, -1, np.int64)
        place[places] = np.arange(places.size)
        row_of = torch.as_tensor(place, device=door.device)
        width = int(door.model.config.get_text_config().hidden_size)
        rows = torch.zeros((places.size, width), device=door.device)
        for view in self.views(door, batch, batch.action_mask):
            rows[row_of[view.tokens]] = door.states(view).float()
        return self.ranks.total(rows)


def scored(batch: Batch, door: Door, beside: Models, needs: Collection[str], reader: Reader) -> Batch:
    """The batch with the scores that are needed, on every action token; 0 elsewhere."""
    rows: dict[str, NDArray[Any]] = {}
    if "sum_pi_sq" in needs:
        rows["sum_pi_sq"] = reader.scores(door, batch, batch.action_mask)["sum_pi_sq"]
    if "ref" in needs:
        got = reader.scores(beside.reference, batch, batch.action_mask)
        rows["ref_logprobs"] = got["lp"]
        if "first_state_logsumexp" in needs:
            rows["ref_logsumexp"] = got["logsumexp"]
    if "teacher" in needs:
        rows["teacher_logprobs"] = reader.scores(beside.teacher, batch, batch.action_mask)["lp"]
    if "value" in needs and beside.critic is not None:
        values = np.zeros(batch.tokens, np.float32)
        values[batch.action_mask] = beside.critic.values(reader.states(door, batch))
        rows["values"] = values
    return replace(batch, scores=replace(batch.scores, **rows)) if rows else batch
