"""What the tests of boxes share: a factory that is closed whatever happens, and shorthands for calls."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agenthub.isolation import Limits
from agenthub.records import Call, Observation
from agenthub.sandbox import Sandbox, SandboxSpec
from agenthub.sandboxes.isolation import probe
from agenthub.sandboxes.python.sandbox import PythonSandbox

SMALL = Limits(memory_mb=128, pids=24, disk_mb=8, files=512, output_bytes=1 << 18)


def need_jail() -> None:
    """Skip where this machine cannot have a jail, and say why."""
    lacking = probe.missing()
    if lacking is not None:
        pytest.skip(f"no jail here: {lacking.name}: {lacking.detail}")


@asynccontextmanager
async def python_factory(isolation: str = "jail") -> AsyncIterator[PythonSandbox]:
    """An open factory."""
    need_jail()
    factory = PythonSandbox(isolation=isolation)
    await factory.open()
    try:
        yield factory
    finally:
        await factory.close()


async def run(box: Sandbox, code: str, timeout_s: float = 20.0) -> Observation:
    """One call of the Python tool."""
    return await box.call(Call(id="0.0", tool="python", arguments={"code": code}), timeout_s=timeout_s)


async def shown(box: Sandbox, code: str, timeout_s: float = 20.0) -> str:
    """The text of one call."""
    return (await run(box, code, timeout_s)).text


def small(**params: Any) -> SandboxSpec:
    """A spec with small limits."""
    return SandboxSpec(limits=SMALL, params=params)


def groups_of(factory: PythonSandbox) -> Mapping[str, str]:
    """Paths of the supervisor's parent groups, by controller."""
    link = factory._isolation._link  # type: ignore[attr-defined]
    groups: dict[str, str] = link.facts["groups"]
    return groups


def processes() -> set[int]:
    """Every process of this machine."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}
