"""One Chromium in one jail for the tests of a module; where there is none they are skipped by name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agenthub.episodes import Workbench
from agenthub.errors import UserError
from agenthub.sandboxes.browser.chromium import find
from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from agenthub.sandboxes.isolation import probe


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the program, and a jail to put it in."""
    try:
        found = find()
    except UserError as missing:
        pytest.skip(str(missing))
    lacking = probe.missing()
    if lacking is not None:
        pytest.skip(f"no jail: {lacking.name}: {lacking.detail}")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workbench(chromium: str) -> AsyncIterator[Workbench]:
    """A workbench whose browser all tests of a module share."""
    bench = Workbench()
    try:
        yield bench
    finally:
        await bench.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def factory(workbench: Workbench) -> BrowserSandbox:
    """The workbench's browsers."""
    made = await workbench.factory("browser")
    assert isinstance(made, BrowserSandbox)
    return made
