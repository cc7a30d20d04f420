"""What plug-ins need of a batch beyond log-probabilities: other models' opinions and moments of the distribution."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agenthub.trainers.critic import Critic
from agenthub.trainers.types import Batch, Bools, Doubles
from agenthub.trainers.view import hidden_states, token_scores, views

__all__ = ["Models", "scored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The models beside the trained one; None where the recipe has none."""

    reference: Any = None
    """Frozen; same tokenizer."""
    teacher: Any = None
    """Frozen; same tokenizer."""
    critic: Critic | None = None

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


@torch.no_grad()
def scored(
    batch: Batch, model: Any, beside: Models, needs: Collection[str], *, temperature: float, view_tokens: int
) -> Batch:
    """The batch with the scores that are needed, on every action token; 0 elsewhere."""
    rows: dict[str, NDArray[Any]] = {}
    device = next(model.parameters()).device

    def run(which: Any, chosen: Bools, **wanted: bool) -> dict[str, NDArray[Any]]:
        out: dict[str, NDArray[Any]] = {}
        for view in views(batch, chosen, max_tokens=view_tokens, device=device):
            got = token_scores(which, view, temperature=temperature, **wanted)
            place = view.tokens.cpu().numpy()
            for name in ("lp", *wanted):
                out.setdefault(name, np.zeros(batch.tokens, np.float32))[place] = getattr(got, name).cpu().numpy()
        return out or {name: np.zeros(batch.tokens, np.float32) for name in ("lp", *wanted)}

    if "sum_pi_sq" in needs:
        rows["sum_pi_sq"] = run(model, batch.action_mask, sum_pi_sq=True)["sum_pi_sq"]
    if "ref" in needs:
        wanted = {"logsumexp": True} if "first_state_logsumexp" in needs else {}
        got = run(beside.reference, batch.action_mask, **wanted)
        rows["ref_logprobs"] = got["lp"]
        if wanted:
            rows["ref_logsumexp"] = got["logsumexp"]
    if "teacher" in needs:
        rows["teacher_logprobs"] = run(beside.teacher, batch.action_mask)["lp"]
    if "value" in needs and beside.critic is not None:
        rows["values"] = _values(batch, model, beside.critic, view_tokens)
    return replace(batch, scores=replace(batch.scores, **rows)) if rows else batch


def _values(batch: Batch, model: Any, critic: Critic, view_tokens: int) -> NDArray[Any]:
    """f32[T]"""
    device = next(model.parameters()).device
    states, places = [], []
    for view in views(batch, batch.action_mask, max_tokens=view_tokens, device=device):
        states.append(hidden_states(model, view).float())
        places.append(view.tokens)
    out = np.zeros(batch.tokens, np.float32)
    if states:
        place = torch.cat(places)
        order = torch.argsort(place)
        out[place[order].cpu().numpy()] = critic.values(torch.cat(states).index_select(0, order))
    return out
