"""The echo tool: an episode like any other, without a box."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenthub.episodes import Episode, Workbench
from agenthub.errors import UserError
from agenthub.records import Call, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.echo import EchoSandbox
from agenthub.server.admission import request_mb
from agenthub.suites.load import load_suites
from agenthub.wire import Action, CallIn

TASKS = Path(__file__).parents[2] / "tasks"


async def test_an_episode_of_the_suite_is_shown_its_text_and_rewarded() -> None:
    (task,) = load_suites([TASKS / "echo.yaml"])["echo"].tasks
    assert request_mb(task) == 0, "nothing is set aside for it"
    episode = Episode(task, Workbench(), id="e", group="g", member=0)
    await episode.open()
    steps = [await episode.step(_text(text), timeout_s=None, generation=None) for text in task.solution]
    assert steps[0].observation["text"] == "```output\nparrot\n```"
    assert [step.reward for step in steps] == [0.1, 1.0]
    assert episode.trajectory is not None and episode.trajectory.reward == pytest.approx(1.1)


async def test_its_copies_are_episodes_of_their_own() -> None:
    (task,) = load_suites([TASKS / "echo.yaml"])["echo"].tasks
    episode = Episode(task, Workbench(), id="e", group="g", member=0)
    await episode.open()
    await episode.step(_text(task.solution[0]), timeout_s=None, generation=None)
    for copy in await episode.fork(2):
        done = await copy.step(Action(calls=[CallIn(arguments={"code": "more"})]), timeout_s=None, generation=None)
        assert done.turn == 1 and done.observation["text"] == "```output\nmore\n```"
        await copy.cancel()
    await episode.cancel()


async def test_wrong_arguments_are_an_observation_and_settings_are_refused() -> None:
    factory = EchoSandbox()
    box = await factory.start(SandboxSpec())
    for arguments in ({}, {"code": 3}, {"code": "1", "more": 2}):
        seen = await box.call(Call(id="0.0", tool="echo", arguments=arguments), timeout_s=1)
        assert seen.failed and "argument" in seen.text
    with pytest.raises(UserError):
        await factory.start(SandboxSpec(params=frozen({"loud": True})))
    with pytest.raises(UserError):
        await factory.code_box(SandboxSpec())


def _text(text: str) -> Action:
    return Action(text=text, calls=None)
