"""A bug in the middle of a turn: the episode ends, the others do not notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agenthub.client import Hub
from agenthub.errors import AgenthubError, WireError
from agenthub.server import stepping
from agenthub.wire import Action, CallIn
from tests.server import harness
from tests.server.harness import hub, until

NOTHING = Action(text="nothing that any protocol reads as a call", calls=None)
CALL = Action(text=None, calls=[CallIn(arguments={"code": "1 + 1"})])


@pytest.mark.parametrize("action", [NOTHING, CALL], ids=["at once", "in a box"])
async def test_an_episode_whose_turn_met_a_bug_ends_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    played = stepping._played
    met: list[str] = []

    def broken(live: Any, *rest: Any) -> None:
        if not met:
            met.append(live.episode.id)
            raise RuntimeError("a bug")
        played(live, *rest)

    monkeypatch.setattr(stepping, "_played", broken)
    suites = harness.suites()
    # A turn without a call takes no time then, and the episode goes on.
    tasks = tuple(replace(task, on_no_call="remind") for task in suites["fakes"].tasks)
    suites["fakes"] = replace(suites["fakes"], tasks=tasks)
    monkeypatch.setattr(harness, "suites", lambda: suites)
    async with hub(tmp_path) as served, Hub(served.url, retry_s=5) as client:
        first, second = await client.create("fakes", "long", count=2)
        with pytest.raises(AgenthubError):
            await first.step(action)
        assert met == [first.id]
        await until(lambda: len(served.dispatcher.table) == 1)
        with pytest.raises(WireError) as ended:
            await first.step(action)
        assert ended.value.status == 410
        assert (await second.step(action)).turn == 0
