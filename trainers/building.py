"""From a recipe to its learner, alone or among the processes that torchrun started."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from agenthub.trainers.config import Recipe
from agenthub.trainers.hardware import device_of
from agenthub.trainers.lead import Leader, learner_of, shares
from agenthub.trainers.learner import Learner
from agenthub.trainers.ranks import Ranks, joined, world
from agenthub.trainers.scoring import Models

__all__ = ["learner_for", "ranks_of"]


def ranks_of(recipe: Recipe) -> AbstractContextManager[Ranks]:
    """The processes that share a recipe's model, joined until the body ends.

    Raises:
        UserError: another number of them runs than the recipe asks for, or its device is not here.
        HostFault: the others do not come in time.
    """
    config, (_, size) = recipe.learner, world()
    config.check(size)
    return joined(device=device_of(config).type, timeout_s=config.timeout_s, alone=shares(config, size))


def learner_for(recipe: Recipe, model: Any, beside: Callable[[Recipe, Any], Models], ranks: Ranks) -> Learner | Leader:
    """The learner of a recipe; every rank makes its own, and those beside the first wait until that one does.

    Raises:
        UserError: a model beside the trained one cannot be loaded.
        HostFault: a rank is gone.
    """
    ranks.tell()
    return learner_of(
        model,
        recipe.loss.make(),
        recipe.optim,
        recipe.learner,
        temperature=recipe.rollout.temperature,
        regularisers=[part.make() for part in recipe.regularise],
        beside=lambda placed: beside(recipe, placed),
        ranks=ranks,
    )
