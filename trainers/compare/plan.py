"""What a comparison runs: recipes that differ in their method alone, each with every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agenthub.errors import UserError
from agenthub.trainers.config import Recipe, load_recipe

__all__ = ["SAME", "SAME_ROLLOUT", "Arm", "Plan", "Planned", "make_plan"]

SAME = ("suite", "split", "policy", "renderer", "eval", "updates", "staleness", "deterministic", "checkpoint_every")
"""Keys that every arm has from the first recipe."""
SAME_ROLLOUT = ("groups", "group_size", "temperature", "max_tokens")
"""Keys of `rollout` that every arm has from the first recipe."""
MOST_SEEDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One method."""

    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One run of an arm."""

    arm: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A comparison."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]

    @property
    def first(self) -> Recipe:
        """The recipe whose budget all have."""
        return self.arms[0].recipe

    def runs(self) -> list[Planned]:
        """Every run; all arms with the first seed, then all with the next, so that a part of it is even too."""
        return [
            Planned(arm=arm.name, seed=seed, recipe=_changed(arm.recipe, {"seed": seed}))
            for seed in self.seeds
            for arm in self.arms
        ]

    def budget(self) -> dict[str, Any]:
        """What all arms share, for the report."""
        dumped = self.first.model_dump(mode="json")
        shared = {key: dumped[key] for key in SAME if key not in ("policy", "eval", "checkpoint_every")}
        return shared | {key: dumped["rollout"][key] for key in SAME_ROLLOUT} | {"seeds": list(self.seeds)}


def make_plan(
    names: Sequence[str],
    *,
    seeds: int,
    suite: str | None = None,
    updates: int | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """The plan of a comparison; suite, budget and evaluations are the first recipe's, under `overrides`.

    Args:
        names: recipes by name or path. seeds: how many, from 0. overrides: `key=value` for all of them.

    Raises:
        UserError, ConfigError: a recipe is unknown or broken, comes twice, cannot have the budget of the first, or
            there are no seeds or no recipes.
    """
    if not names:
        raise UserError("give the recipes to compare; `agenthub recipes` lists them")
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"--seeds is {seeds}; expected 1 to {MOST_SEEDS}")
    if updates is not None and updates < 1:
        raise UserError(f"--updates is {updates}; expected 1 or more")
    over = [*overrides, *([f"suite={suite}"] if suite else []), *([f"updates={updates}"] if updates else [])]
    recipes = [load_recipe(name, over) for name in names]
    for place, recipe in enumerate(recipes):
        if recipe.name in [other.name for other in recipes[:place]]:
            raise UserError(f"two of the recipes are named {recipe.name!r}; a method is compared once")
    return Plan(arms=tuple(_arm(recipe, recipes[0]) for recipe in recipes), seeds=tuple(range(seeds)))


def _arm(recipe: Recipe, first: Recipe) -> Arm:
    source = first.model_dump(mode="json")
    rollout = {key: source["rollout"][key] for key in SAME_ROLLOUT}
    kept = recipe.model_dump(mode="json")["rollout"]
    shared = {key: source[key] for key in SAME}
    return Arm(name=recipe.name, recipe=_changed(recipe, shared | {"rollout": kept | rollout}))


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(recipe.model_dump(mode="json") | changes)
    except ValidationError as error:
        told = "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
        raise UserError(f"recipe {recipe.name!r} cannot have the budget of this comparison: {told}") from error
