"""Recipes: what ships is sound, and what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenthub.errors import ConfigError, UserError
from agenthub.trainers.config import RECIPES, list_recipes, load_recipe

BASE = """format: agenthub.recipe/1
name: mine
suite: arithmetic
filter: {uses: none}
credit: {uses: grpo}
loss: {uses: ppo}
"""


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_ships_loads_under_its_own_name_and_says_where_it_is_from(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert recipe.source.startswith("arXiv ")
    assert recipe.description


def test_the_list_names_the_plugins() -> None:
    rows = {row["name"]: row for row in list_recipes()}
    assert rows["simpletir"]["kind"] == "simpletir + grpo + ppo"
    assert {"grpo", "mt_grpo", "simpletir"} <= set(rows)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BASE + "updtes: 3\n", 7, "did you mean 'updates'"),
        (BASE + "updates: many\n", 7, "updates is 'many'"),
        (BASE.replace("uses: grpo", "uses: gpro"), 5, "no credit named 'gpro'; did you mean 'grpo'"),
        (BASE.replace("{uses: ppo}", "{uses: ppo, args: {cliplow: 1}}"), 6, "did you mean 'clip_low'"),
        (BASE.replace("{uses: ppo}", "{uses: ppo, args: {clip_low: 1}}"), 6, "clip_low 1.0 must be in 0 to 1"),
        (BASE + "rollout: {group_size: 0}\n", 7, "greater than or equal to 1"),
        (BASE + "rollout: {temperature: 0}\n", 7, "greater than 0"),
        (BASE + "optim: {warmup: 50}\n", 1, "more than updates"),
        (BASE + "optim: {betas: [0.9, 1.0]}\n", 7, "below 1"),
        (BASE.replace("recipe/1", "recipe/2"), 1, "agenthub.recipe/1"),
    ],
)
def test_a_wrong_recipe_is_refused_at_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


def test_settings_reach_into_a_plugins_options_and_are_checked() -> None:
    assert load_recipe("simpletir", ["filter.args.min_n=2", "optim.lr=1e-3"]).filter.make().min_n == 2
    with pytest.raises(ConfigError, match="min_n"):
        load_recipe("simpletir", ["filter.args.minn=2"])
    with pytest.raises(ConfigError, match=r"more than rollout\.group_size"):
        load_recipe("simpletir", ["rollout.group_size=2"])


def test_an_unknown_recipe_is_met_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean 'simpletir'"):
        load_recipe("simpletr")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe("no/such/file.yaml")
