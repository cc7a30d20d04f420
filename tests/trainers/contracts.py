"""What the contract suites share: a batch that has everything, and the same batch padded."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from agenthub.trainers.types import Batch, Scores
from tests.trainers.fakes import mixed_batch

__all__ = ["padded", "rich", "rich_batch"]


def rich(batch: Batch, seed: int = 0) -> Batch:
    """The batch with every score, log-probabilities that differ a little between engines, and advantages."""
    rng, size = np.random.default_rng(seed), batch.tokens
    mask = batch.action_mask
    old = np.where(mask, -0.2 - rng.random(size), 0.0)
    scores = Scores(
        entropies=np.where(mask, rng.random(size), 0.0),
        ref_logprobs=np.where(mask, old + rng.normal(0.0, 0.2, size), 0.0),
        teacher_logprobs=np.where(mask, old + rng.normal(0.0, 0.2, size), 0.0),
        sum_pi_sq=np.where(mask, np.exp(2 * old) + 0.1 * rng.random(size), 0.0),
        values=np.where(mask, rng.normal(size=size), 0.0),
        ref_logsumexp=np.where(mask, rng.normal(size=size), 0.0),
    )
    return replace(
        batch,
        old_logprobs=old,
        logprobs=np.where(mask, old + rng.normal(0.0, 0.2, size), 0.0),
        scores=scores,
        advantages=np.where(mask, rng.normal(size=batch.trajectories)[batch.trajectory_of_token], 0.0),
    )


def rich_batch() -> Batch:
    """Seven trajectories of three groups, with every score."""
    return rich(mixed_batch())


def padded(batch: Batch, extra: int = 3) -> Batch:
    """The same batch with `extra` tokens that nobody sampled at the end of each sample, wild in all else."""
    order = np.argsort(
        np.concatenate([batch.sample_of_token, np.repeat(np.arange(batch.samples), extra)]), kind="stable"
    )
    ends = np.searchsorted(batch.sample_of_token, np.arange(batch.samples), side="right") - 1
    zeros = np.zeros(batch.samples * extra)

    def grown(values: np.ndarray[Any, Any], filler: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.concatenate([values, filler.astype(values.dtype)])[order]

    scores = {spec.name: getattr(batch.scores, spec.name) for spec in fields(batch.scores)}
    return replace(
        batch,
        ids=grown(batch.ids, zeros + 7),
        action_mask=grown(batch.action_mask, zeros),
        sample_of_token=grown(batch.sample_of_token, np.repeat(np.arange(batch.samples), extra)),
        turn_of_token=grown(batch.turn_of_token, np.repeat(batch.turn_of_token[ends], extra)),
        logprobs=grown(batch.logprobs, zeros - 3.0),
        versions=grown(batch.versions, zeros - 1),
        in_loss=grown(batch.in_loss, zeros),
        old_logprobs=grown(batch.old_logprobs, zeros - 2.0),
        advantages=None if batch.advantages is None else grown(batch.advantages, zeros + 5.0),
        scores=Scores(**{name: None if row is None else grown(row, zeros + 11.0) for name, row in scores.items()}),
    )
