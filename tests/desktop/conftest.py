"""Desktops and browsers for these tests; skipped by name where the machine lacks what they need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agenthub.episodes import Workbench
from agenthub.errors import UserError
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.browser import chromium
from agenthub.sandboxes.desktop.programs import missing
from agenthub.sandboxes.desktop.sandbox import DesktopSandbox
from agenthub.sandboxes.desktop.session import DesktopSession
from agenthub.sandboxes.isolation import probe

PAD = {"do": "launch", "argv": ["mousepad", "--disable-server", "note.txt"], "title": "note.txt"}
Open = Callable[..., Awaitable[DesktopSession]]


def _needs_the_jail() -> None:
    layer = probe.missing()
    if layer is not None:
        pytest.skip(f"no jail here: {layer.name}: {layer.detail}")


@pytest.fixture(scope="session")
def programs() -> None:
    """The programs of a desktop."""
    lacking = missing()
    if lacking:
        pytest.skip(f"no desktop here: {', '.join(lacking)} missing (Debian: {' '.join(lacking.values())})")
    _needs_the_jail()


@pytest.fixture(scope="session")
def browser() -> None:
    """Chromium."""
    try:
        chromium.find()
    except UserError as lacking:
        pytest.skip(str(lacking))
    _needs_the_jail()


@pytest.fixture
async def bench() -> AsyncIterator[Workbench]:
    made = Workbench()
    yield made
    await made.close()


@pytest.fixture
async def opened(programs: None) -> AsyncIterator[Open]:
    """Starts desktops with an editor on note.txt; settings over that by name."""
    factory = DesktopSandbox()
    await factory.open()
    sessions: list[DesktopSession] = []

    async def start(**config: Any) -> DesktopSession:
        spec = SandboxSpec(files={"note.txt": b"one\n"}, params={"reset": [PAD], **config})
        sessions.append(await factory.start(spec))
        return sessions[-1]

    yield start
    for session in sessions:
        await session.close()
    await factory.close()
