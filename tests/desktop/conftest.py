"""Desktops and browsers for these tests; skipped by name where the machine lacks what they need."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agenthub.episodes import Workbench
from agenthub.errors import UserError
from agenthub.sandboxes.browser import chromium
from agenthub.sandboxes.desktop.programs import missing
from agenthub.sandboxes.isolation import probe


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
