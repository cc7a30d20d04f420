"""A hub in this process on a port of its own, with suites of fake sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agenthub.episodes import Workbench
from agenthub.errors import HostFault
from agenthub.log import Entry, EpisodeLog
from agenthub.records import frozen
from agenthub.sandbox import SandboxSpec
from agenthub.server.app import make_app
from agenthub.server.catalog import Catalog
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.door import Patience, listening
from agenthub.server.guard import Guard
from agenthub.server.tokens import Keyring
from agenthub.suites.task import Suite, TaskLimits, ToolUse
from tests.fakes import FakeFactory, fake_task

__all__ = ["CALL", "RunningHub", "hub", "suites", "until", "winning"]

CALL = {"calls": [{"tool": "python", "arguments": {"code": "1+1"}}]}
MAX_BODY = 1 << 20


def winning() -> dict[str, Any]:
    """The action that ends an episode with reward 1."""
    return {"answer": "42"}


def suites() -> dict[str, Suite]:
    """A suite that works, with a task whose sandbox cannot be started; one whose tasks are copied each in its way."""
    broken = ToolUse(name="python", uses="fake", spec=SandboxSpec(image="broken"))
    tasks = (
        *(fake_task(id=f"t{i}") for i in range(3)),
        fake_task(id="held", split="test"),
        fake_task(id="broken", tools=(broken,)),
        fake_task(id="long", limits=TaskLimits(max_turns=10_000)),
    )
    suite = Suite(
        name="fakes",
        version="1",
        description="Echoes.",
        license="CC0-1.0",
        path="fakes.yaml",
        tasks=tasks,
        splits=("train", "test"),
        x=frozen(),
    )
    kinds = {"live": "fake_copyable", "replay": "fake", "single": "fake_single"}
    copied = tuple(
        fake_task(id=id, suite="forks", tools=(ToolUse(name="python", uses=uses),), deterministic=False)
        for id, uses in kinds.items()
    )
    large = ToolUse(name="python", uses="fake_copyable", spec=SandboxSpec(request_mb=100))
    heavy = fake_task(id="heavy", suite="forks", tools=(large,))
    tasks = (*copied, heavy, replace(heavy, id="careful", on_lost="restore"), replace(heavy, id="plain", tools=()))
    pictured = fake_task(id="pictured", suite="pictured", tools=(ToolUse(name="look", uses="fake_pictured"),))
    return {
        "fakes": suite,
        "pictured": replace(suite, name="pictured", tasks=(pictured,), splits=("train",)),
        "forks": replace(suite, name="forks", tasks=tasks, splits=("train",)),
    }


class FillableLog(EpisodeLog):
    """A log whose disk can be full."""

    full = False

    async def append(self, *entries: Entry) -> None:
        if self.full:
            raise HostFault("episode log: database or disk is full")
        await super().append(*entries)


@dataclass(frozen=True)
class RunningHub:
    """A hub that serves."""

    url: str
    dispatcher: Dispatcher
    log: FillableLog


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true; fails after some seconds."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not become true")


def _guard(dispatcher: Dispatcher, token: str | None) -> Guard:
    return Guard(dispatcher.accounts, Keyring(dispatcher.accounts, shared=token) if token else None)


@asynccontextmanager
async def hub(
    folder: Path,
    *,
    token: str | None = None,
    guard: Callable[[Dispatcher], Guard] | None = None,
    patience: Patience | None = None,
    max_episodes: int = 64,
    memory_mb: int = 1000,
) -> AsyncIterator[RunningHub]:
    """Serve inside the context; after it, every box of its episodes is closed and nothing is promised any more."""
    FakeFactory.made.clear()
    log = FillableLog(folder / "log.sqlite")
    async with Dispatcher(
        Catalog(suites()), Workbench(), log, folder / "blobs", max_episodes=max_episodes, memory_mb=memory_mb
    ) as dispatcher:
        app = make_app(
            dispatcher, guard(dispatcher) if guard else _guard(dispatcher, token), max_body=MAX_BODY, patience=patience
        )
        async with listening(app, "127.0.0.1", 0, patience=patience) as url:
            try:
                yield RunningHub(url, dispatcher, log)
            finally:
                dispatcher.stop()
    assert all(box.closed for box in FakeFactory.made), "a box was left open"
    assert dispatcher.admission.held_mb == 0, "memory is still promised"
