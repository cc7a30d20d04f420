"""The desktop suite: on each task the oracle has 1 and who does nothing has 0."""

from __future__ import annotations

import pytest

from agenthub.episodes import Workbench
from agenthub.suites.load import load_suite
from tests.desktop.playing import wrongs

AT_ONCE = 3

pytestmark = pytest.mark.gui


@pytest.mark.timeout(600)
async def test_the_oracle_wins_every_task_and_who_does_nothing_wins_none(programs: None, bench: Workbench) -> None:
    suite = load_suite("agenthub/tasks/desktop.yaml")
    assert len(suite.tasks) >= 20
    assert len({task.metadata["kind"] for task in suite.tasks}) >= 3
    assert all({"steps", "elements"} == set(task.metadata["difficulty"]) for task in suite.tasks)
    wrong = await wrongs(suite.tasks, bench, AT_ONCE)
    assert not wrong, "\n".join(wrong)
