"""Recipes: what ships is sound, and what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenthub.errors import ConfigError, UserError
from agenthub.trainers.config import RECIPES, list_recipes, load_recipe
from agenthub.trainers.plugins import lacking, make

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
    assert recipe.source
    assert recipe.description
    assert recipe.known


def test_the_list_names_the_plugins() -> None:
    rows = {row["name"]: row for row in list_recipes()}
    assert rows["simpletir"]["kind"] == "simpletir + grpo + ppo"
    assert rows["remix"]["kind"] == "none + grpo + ppo + fifo_replay + tis + convex_kl"
    assert {"grpo", "mt_grpo", "simpletir"} <= set(rows)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BASE + "updtes: 3\n", 7, "did you mean 'updates'"),
        (BASE + "updates: many\n", 7, "updates is 'many'"),
        (BASE.replace("uses: grpo", "uses: gpro"), 5, "no credit named 'gpro'; did you mean 'grpo'"),
        (BASE.replace("{uses: ppo}", "{uses: ppo, args: {cliplow: 1}}"), 6, "did you mean 'clip_low'"),
        (BASE.replace("{uses: ppo}", "{uses: ppo, args: {clip_low: 1}}"), 6, "clip_low 1.0 must be in 0 to 1"),
        (BASE.replace("{uses: ppo}", "{uses: kl}"), 1, "loss 'kl' needs a reference model; set reference: initial"),
        (BASE.replace("{uses: grpo}", "{uses: gae}"), 1, "credit 'gae' needs a critic"),
        (BASE.replace("{uses: grpo}", "{uses: g_opd}"), 1, "a reference model; set reference: initial; and a teacher"),
        (BASE + "regularise: [{uses: chi2}]\n", 1, "loss 'chi2' needs a reference model"),
        (BASE.replace("{uses: grpo}", "{uses: turn_value_by_fork}"), 1, "needs episodes that are forked"),
        (BASE + "correction: {uses: tsi}\n", 7, "no correction named 'tsi'; did you mean 'tis'"),
        (BASE + "sampler: {uses: dmup}\n", 7, "no sampler named 'dmup'; did you mean 'dump'"),
        (
            BASE.replace("{uses: ppo}", "{uses: ppo, args: {clip_low: '0.2'}}"),
            6,
            "clip_low is '0.2': Input should be a",
        ),
        (
            BASE.replace("{uses: grpo}", "{uses: grpo, args: {ddof: 1.5}}"),
            5,
            "ddof is 1.5: Input should be a valid int",
        ),
        (
            BASE.replace("{uses: grpo}", "{uses: grpo, args: {eps: true}}"),
            5,
            "eps is True: Input should be a valid num",
        ),
        (BASE.replace("{uses: ppo}", "{uses: minirl}") + "correction: {uses: tis}\n", 1, "corrects by itself"),
        (BASE + "correction: {uses: tis}\noptim: {old_logprobs: rollout}\n", 1, "would do it twice"),
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


def test_a_policy_without_logits_is_refused_what_needs_them() -> None:
    otb, reval = make("credit", "otb", {}), make("loss", "reval", {})
    assert lacking("credit", "otb", otb, {"sum_pi_sq"}) is None
    assert lacking("credit", "otb", otb, {"ref"}) == "credit 'otb' needs the logits of the trained model"
    assert "the logits of the trained model; and a reference" in str(lacking("loss", "reval", reval, ()))
