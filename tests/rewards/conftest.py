"""Real grading boxes for the tests of code checks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agenthub.episodes import Workbench
from agenthub.errors import UserError


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Workbench]:
    """A workbench with the Python sandbox; skips where this machine cannot jail."""
    workbench = Workbench()
    try:
        await workbench.factory("python")
    except UserError as error:
        pytest.skip(f"no jail here: {error}")
    try:
        yield workbench
    finally:
        await workbench.close()
