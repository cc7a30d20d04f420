"""The peers' environments are made before a test's own time begins."""

from __future__ import annotations

import pytest

from tests.dialects.peers import interpreter


@pytest.fixture(scope="session")
def openenv() -> str:
    return interpreter("openenv")


@pytest.fixture(scope="session")
def kimina() -> str:
    return interpreter("kimina")


@pytest.fixture(scope="session")
def mcp() -> str:
    return interpreter("mcp")


@pytest.fixture(scope="session")
def sandboxfusion() -> str:
    return interpreter("sandboxfusion")


@pytest.fixture(scope="session")
def trl() -> str:
    return interpreter("trl")
