"""The contract of isolations and of the Python sandbox, over containers: the same tests that the jail passes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from agenthub.errors import UserError
from agenthub.isolation import Isolation
from agenthub.registry import registry
from agenthub.sandbox import Sandbox, SandboxFactory, SandboxSpec
from agenthub.sandboxes.python import sandbox as python_sandbox
from tests.contract import test_isolation, test_sandbox
from tests.contract.test_sandbox import Kind

pytestmark = pytest.mark.docker

_NOT_HERE = {
    "test_boxes_at_once_are_apart": "the engine, and not the isolation, gives numbers to a container's processes",
    "test_layers_are_told_without_starting_anything": "names the jail's layers",
}


def _take(module: object) -> dict[str, object]:
    names = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    return {name: value for name, value in names.items() if name not in _NOT_HERE}


globals().update(_take(test_isolation) | _take(test_sandbox))
folder = test_isolation.folder


@pytest.fixture(autouse=True)
def python_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run programs with this interpreter's path; the image has its own."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3.11")


# The same code with another runtime: where minutes count, one of the two is enough.
BACKENDS = ["docker", pytest.param("gvisor", marks=pytest.mark.slow)]


@pytest.fixture(params=BACKENDS)
async def isolation(request: pytest.FixtureRequest, python_image: str) -> AsyncIterator[Isolation]:
    made: Isolation = registry("isolation").load(request.param)()
    try:
        await made.open()
    except UserError as error:
        pytest.skip(str(error))
    yield made
    await made.close()


@pytest.fixture(params=BACKENDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    (python,) = (kind for kind in test_sandbox.KINDS if kind.name == "python" and kind.isolation == "jail")
    return Kind(**{name: getattr(python, name) for name in Kind.__slots__} | {"isolation": request.param})


@pytest.fixture
async def factory(kind: Kind, python_image: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SandboxFactory]:
    # A container that waits for nobody still takes a third of a second to start.
    monkeypatch.setattr(python_sandbox, "_LOW", 0)
    monkeypatch.setattr(python_sandbox, "_HIGH", 1)
    made: SandboxFactory = registry("sandbox").load(kind.name)(isolation=kind.isolation)
    try:
        await made.open()
    except UserError as error:
        pytest.skip(str(error))
    yield made
    await made.close()


@pytest.fixture
async def sandbox(factory: SandboxFactory) -> AsyncIterator[Sandbox]:
    made = await factory.start(SandboxSpec())
    yield made
    await made.close()
