"""The checks of SQL over real boxes, through episodes of the packaged suites: oracles win, and tricks do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agenthub.episodes import Episode, Workbench
from agenthub.errors import TaskBroken, UnknownName, UserError
from agenthub.generators.parts import part_of
from agenthub.generators.sql import generate, rows_of
from agenthub.records import Outcome, frozen
from agenthub.registry import registry
from agenthub.suites.load import load_suites
from agenthub.suites.task import Task
from agenthub.wire import Action

TASKS = Path(__file__).parents[2] / "tasks"
ON_LOOP = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def suites() -> dict[str, list[Task]]:
    loaded = load_suites([TASKS / "sql.yaml", TASKS / "sql_qatch.yaml"])
    return {name: [task for task in loaded[name].tasks if task.split == "train"] for name in ("sql", "sql_qatch")}


async def play(task: Task, bench: Workbench, turns: Sequence[str]) -> tuple[float, dict[str, float]]:
    """The sum of the rewards, and the last step's components."""
    episode = Episode(task, bench, id="e", group="g", member=0)
    await episode.open()
    steps = [await episode.step(Action(text=text), timeout_s=None, generation=None) for text in turns]
    assert steps[-1].terminated
    return sum(step.reward or 0.0 for step in steps), dict(steps[-1].rewards)


def reference(task: Task) -> str:
    return str(task.verifier.checks[0].args["reference"])


def dearest(tasks: Sequence[Task]) -> Task:
    """A task that asks for an order, with different prices in several rows on every database."""
    for task in tasks:
        args = task.verifier.checks[0].args
        scripts = [task.tools[0].spec.params["database"], *args["hidden"]]
        if "the dearest first" in str(task.messages[-1].content):
            prices = [{price for _, price in rows_of(script, args["reference"])} for script in scripts]
            if all(len(found) > 1 for found in prices):
                return task
    raise AssertionError("no such task")


def level(tasks: Sequence[Task], world: str, wanted: int) -> Task:
    return next(it for it in tasks if it.metadata["world"] == world and it.metadata["level"] == wanted)


@ON_LOOP
@pytest.mark.parametrize("suite", ["sql", "sql_qatch"])
async def test_oracles_win(suites: dict[str, list[Task]], bench: Workbench, suite: str) -> None:
    for world in ("shop", "school"):
        for wanted in (1, 2, 3):
            task = level(suites[suite], world, wanted)
            total, parts = await play(task, bench, task.solution)
            assert total == pytest.approx(1.0) and parts == {"format": 0.15, "outcome": 0.85}


@ON_LOOP
async def test_a_constant_is_right_on_the_visible_database_alone(
    suites: dict[str, list[Task]], bench: Workbench
) -> None:
    task = next(it for it in suites["sql"] if reference(it).startswith("SELECT COUNT(*)"))
    ((count,),) = rows_of(task.tools[0].spec.params["database"], reference(task))
    assert (await play(task, bench, [f"<answer> SELECT {count} </answer>"]))[1] == {"format": 0.15, "outcome": 0.0}
    bare = replace(task.verifier.checks[0], args=frozen({**task.verifier.checks[0].args, "hidden": ()}))
    seen = replace(task, verifier=replace(task.verifier, checks=(bare,)))
    assert (await play(seen, bench, [f"<answer> SELECT {count} </answer>"]))[1]["outcome"] == 0.85


@ON_LOOP
@pytest.mark.parametrize(
    "answer",
    [
        "SELECT",
        "",
        "done",
        "SELECT 1; DROP TABLE customers",
        "SELECT name FROM sqlite_master",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "SELECT zeroblob(900000) FROM customers a, customers b, customers c",
        "ATTACH 'x' AS y",
    ],
)
async def test_what_answers_nothing_earns_nothing_of_the_outcome(
    suites: dict[str, list[Task]], bench: Workbench, answer: str
) -> None:
    task = level(suites["sql"], "shop", 1)
    assert (await play(task, bench, [f"<answer> {answer} </answer>"]))[1].get("outcome") == 0.0


@ON_LOOP
async def test_half_right_rows_earn_a_part_where_qatch_scores(suites: dict[str, list[Task]], bench: Workbench) -> None:
    task = next(it for it in suites["sql_qatch"] if "the highest price of its products" in str(it.messages[-1].content))
    half = "<answer> SELECT category, MIN(price) FROM products GROUP BY category </answer>"
    assert 0.3 < (await play(task, bench, [half]))[1]["outcome"] < 0.8
    fenced = f"<answer>\n```sql\n{reference(task)}\n```\n</answer>"
    assert (await play(task, bench, [fenced]))[1]["outcome"] == pytest.approx(0.85)


@ON_LOOP
async def test_a_swapped_order_of_rows_is_wrong_where_it_is_asked_for(
    suites: dict[str, list[Task]], bench: Workbench
) -> None:
    task = dearest(suites["sql"])
    answer = f"<answer> {reference(task).replace('price DESC', 'price')} </answer>"
    assert (await play(task, bench, [answer]))[1]["outcome"] == 0.0


@ON_LOOP
async def test_a_reference_that_fails_breaks_the_task_and_gives_no_reward(
    suites: dict[str, list[Task]], bench: Workbench
) -> None:
    task = suites["sql"][0]
    check = replace(task.verifier.checks[0], args=frozen({"reference": "SELECT nothing FROM nowhere"}))
    broken = replace(task, verifier=replace(task.verifier, checks=(check,)))
    episode = Episode(broken, bench, id="e", group="g", member=0)
    await episode.open()
    step = await episode.step(Action(text="<answer> SELECT 1 </answer>"), timeout_s=None, generation=None)
    assert step.reward is None
    assert episode.trajectory is not None and episode.trajectory.outcome is Outcome.ENV_FAULT


@ON_LOOP
async def test_the_last_call_is_graded_where_it_is_asked_for(suites: dict[str, list[Task]], bench: Workbench) -> None:
    task = level(suites["sql"], "shop", 2)
    args = frozen({**task.verifier.checks[0].args, "candidate": "last_call"})
    called = replace(task, verifier=replace(task.verifier, checks=(replace(task.verifier.checks[0], args=args),)))
    turns = ["<sql> SELECT 1 </sql>", f"<sql> {reference(task)} </sql>", "<answer> that one </answer>"]
    assert (await play(called, bench, turns))[1]["outcome"] == 0.85
    assert (await play(called, bench, [turns[1], turns[0], turns[2]]))[1]["outcome"] == 0.0


@ON_LOOP
async def test_order_counts_for_qatch_where_it_is_asked_for(suites: dict[str, list[Task]], bench: Workbench) -> None:
    task = dearest(suites["sql_qatch"])
    swapped = f"<answer> {reference(task).replace('price DESC', 'price')} </answer>"
    assert 0.85 * 4 / 5 <= (await play(task, bench, [swapped]))[1]["outcome"] < 0.85 - 1e-9


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("qatch", {"reference": "SELECT 1", "measures": ["cell_precison"]}, "did you mean 'cell_precision'"),
        ("sql_execution", {"reference": "SELECT 1", "sandbox": "python"}, "no tool of the sandbox 'python'"),
    ],
)
def test_arguments_that_cannot_fit_are_refused_when_a_suite_is_loaded(
    suites: dict[str, list[Task]], name: str, args: dict[str, Any], said: str
) -> None:
    found = registry("check").load(name)
    with pytest.raises((TaskBroken, UserError), match=said):
        found.inspect(suites["sql"][0], found.model.model_validate(args))


def test_tasks_are_distinct_in_their_parts_and_right_only_by_their_database() -> None:
    train, held = list(generate({"part": "train"}, 1, 80)), list(generate({"part": "eval"}, 2, 40))
    asked = [{row["prompt"]["user"].partition("\n\n")[2] for row in rows} for rows in (train, held)]
    assert not asked[0] & asked[1]
    assert {part_of(text) for text in asked[1]} == {"eval"}
    for row in train + held:
        scripts = [row["tools"][0]["config"]["database"], *row["verifier"]["checks"][0]["args"]["hidden"]]
        results = [rows_of(script, row["verifier"]["checks"][0]["args"]["reference"]) for script in scripts]
        assert all(results) and any(rows != results[0] for rows in results), row["prompt"]
    assert list(generate({"part": "train"}, 1, 80)) == train


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"levles": [1]}, "did you mean 'levels'"),
        ({"part": "tain"}, "did you mean 'train'"),
        ({"levels": [4]}, "levels is"),
        ({"hidden": -1}, "hidden is"),
    ],
)
def test_settings_that_are_wrong_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises((UnknownName, UserError), match=said):
        list(generate(config, 1, 1))
