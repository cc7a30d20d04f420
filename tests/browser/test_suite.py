"""The suite `miniwob` as a hub plays it: each task with its difficulty, the goal to begin with, rewards of 0 and 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import agenthub
from agenthub.episodes import Episode, Workbench
from agenthub.errors import UnknownName
from agenthub.generators.miniwob import generate, pages
from agenthub.records import Outcome, Stop, Trajectory, frozen
from agenthub.suites.load import load_suite
from agenthub.suites.task import Suite, Task
from agenthub.wire import Action
from tests.browser.oracles import ORACLES, view_of
from tests.browser.oracles.view import Play

pytestmark = [pytest.mark.gui, pytest.mark.timeout(300)]
PLAYED = ("click-test", "enter-text", "click-checkboxes")


@pytest.fixture(scope="module")
def suite() -> Suite:
    pytest.importorskip("miniwob")
    return load_suite(Path(agenthub.__file__).parent / "tasks" / "miniwob.yaml")


def seeing_the_document(task: Task) -> Task:
    """The task, with the channel that the oracles read."""
    tool = task.tools[0]
    params = frozen({**tool.spec.params, "channels": ["goal", "dom", "error"]})
    return replace(task, tools=(replace(tool, spec=replace(tool.spec, params=params)),))


async def play(task: Task, workbench: Workbench, policy: Callable[[str], str | None]) -> Trajectory:
    """One episode; `policy` gives the text of a turn for what is shown, None to stop."""
    episode = Episode(task, workbench, id="e", group="g", member=0)
    shown = (await episode.open())["messages"][-1]["content"]
    while not episode.done:
        text = policy(shown)
        if text is None:
            break
        done = await episode.step(Action(text=text), timeout_s=None, generation=None)
        shown = "".join(
            part["text"] for seen in done.observation["observations"] for part in seen["parts"] if "text" in part
        )
    return await episode.cancel()


def test_every_page_has_seeds_and_its_difficulty(suite: Suite) -> None:
    assert Counter(task.split for task in suite.tasks) == {"train": 1300, "eval": 650}
    assert {task.metadata["page"] for task in suite.split("eval")} == set(pages())
    assert not {(t.metadata["page"], t.metadata["seed"]) for t in suite.split("train")} & {
        (t.metadata["page"], t.metadata["seed"]) for t in suite.split("eval")
    }
    levels = Counter(task.metadata["difficulty"] for task in suite.split("eval"))
    assert set(levels) == {1, 2, 3, 4}
    for task in suite.tasks:
        assert task.metadata["trajectory_length"] > 0 and task.metadata["elements"] > 0
    measured = {task.metadata["page"] for task in suite.tasks if task.metadata["trajectory_length_measured"]}
    assert measured == set(ORACLES)


def test_settings_of_the_generator_are_checked() -> None:
    with pytest.raises(UnknownName, match="did you mean 'click-test'"):
        list(generate({"pages": ["clik-test"]}, 0, 1))
    with pytest.raises(UnknownName, match="did you mean 'pages'"):
        list(generate({"page": []}, 0, 1))
    rows = list(generate({"pages": ["click-test", "click-tab"]}, 5, 4))
    assert [row["id"] for row in rows] == [
        "click-test-0000005",
        "click-tab-0000005",
        "click-test-0000006",
        "click-tab-0000006",
    ]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("page", PLAYED)
async def test_an_oracle_earns_1_and_a_no_op_0(suite: Suite, workbench: Workbench, page: str) -> None:
    task = seeing_the_document(next(it for it in suite.split("eval") if it.metadata["page"] == page))
    script: Play | None = None

    def oracle(shown: str) -> str:
        nonlocal script
        if script is None:
            script = ORACLES[page](view_of(shown[shown.index("goal:") :]))
            code = next(script)
        else:
            code = script.send(view_of(shown))
        return f"```python\n{code}\n```"

    end = await play(task, workbench, oracle)
    assert (end.stop, end.outcome, end.reward) == (Stop.ANSWERED, Outcome.OK, 1.0)
    end = await play(task, workbench, lambda shown: "```python\nnoop()\n```")
    assert (end.stop, end.outcome, end.reward) == (Stop.OUT_OF_TURNS, Outcome.OK, 0.0)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_copy_is_made_by_playing_the_actions_again(suite: Suite, workbench: Workbench) -> None:
    task = seeing_the_document(next(it for it in suite.split("eval") if it.metadata["page"] == "enter-text"))
    episode = Episode(task, workbench, id="e", group="g", member=0)
    shown = (await episode.open())["messages"][-1]["content"]
    field = view_of(shown[shown.index("goal:") :]).one("input").id
    typed = Action(text=f"```python\nfill('{field}', 'abc')\n```")
    await episode.step(typed, timeout_s=None, generation=None)
    (copy,) = await episode.fork(1)
    look = Action(text="```python\nnoop()\n```")
    seen = [await it.step(look, timeout_s=None, generation=None) for it in (episode, copy)]
    assert seen[0].observation == seen[1].observation
    assert 'value="abc"' in seen[1].observation["text"]
    await episode.cancel()
    await copy.cancel()
