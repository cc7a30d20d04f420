"""Factories of Python sandboxes in every isolation that the machine has, each shared by the tests of a module."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from agenthub.errors import AgenthubError
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.docker.conftest import api, build, engine, python_image
from tests.sandboxes.boxes import need_jail
from tests.security.host import Host, HostOfContainers, HostOfJail

__all__ = ["api", "build", "engine", "python_image"]

CONTAINERS = ("docker", "gvisor")
ISOLATIONS = ["jail", *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.docker]) for name in CONTAINERS)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ISOLATIONS)
async def factory(request: pytest.FixtureRequest) -> AsyncIterator[PythonSandbox]:
    """An open factory in one isolation; skips, and says why, where the machine does not have it."""
    if request.param == "jail":
        need_jail()
    else:
        request.getfixturevalue("python_image")
    made = PythonSandbox(isolation=request.param)
    try:
        await made.open()
    except AgenthubError as error:
        pytest.skip(f"no {request.param} here: {error}")
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[int]:
    """A port of the host's loopback on which somebody listens, and a name in its abstract namespace."""
    with socket.socket(socket.AF_UNIX) as local, socket.socket() as remote:
        remote.bind(("127.0.0.1", 0))
        remote.listen()
        port: int = remote.getsockname()[1]
        local.bind(f"\0agenthub-test-{port}")
        local.listen()
        yield port


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something in the hub's environment that no box may see."""
    monkeypatch.setenv("AGENTHUB_TEST_SECRET", "SECRET")


@pytest.fixture
def host(factory: PythonSandbox) -> Host:
    """What of a factory can be seen from outside."""
    return HostOfJail(factory) if factory._name == "jail" else HostOfContainers(factory)
