"""A judge on the real toolchain. Without one every test that needs it is skipped, and says what was looked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agenthub.isolation import Limits
from agenthub.sandboxes.isolation import probe
from agenthub.sandboxes.isolation.jail import Jail
from agenthub.sandboxes.lean import toolchain
from agenthub.sandboxes.lean.box import Compiler
from agenthub.sandboxes.lean.judge import Judge


def lacking() -> str | None:
    """Why Lean cannot run in the jail here."""
    layer = probe.missing()
    return toolchain.missing() or (f"no jail: {layer.detail}" if layer else None)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled challenges and the library's index, made by these tests alone."""
    return tmp_path_factory.mktemp("lean-cache")


@pytest.fixture
async def judge(cache: Path) -> AsyncIterator[Judge]:
    """A judge with a pool of its own."""
    why = lacking()
    if why is not None:
        pytest.skip(why)
    jail = Jail()
    await jail.open()
    limits = Limits(memory_mb=3072, pids=64, cpus=2.0, open_files=1024)
    compiler = Compiler(jail, toolchain.find(), limits=limits, warm=0)
    try:
        yield Judge(compiler, cache=cache, seconds=600.0)
    finally:
        await compiler.close()
        await jail.close()
