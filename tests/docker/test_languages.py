"""Languages in containers: the root that the jail uses, as an image of the engine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agenthub.records import frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.languages import store
from agenthub.sandboxes.languages.sandbox import LanguageSandbox
from tests.docker.conftest import ROOT

pytestmark = pytest.mark.docker

LUA: dict[str, Any] = {"id": "lua", "install": ["lua5.4"], "source": "main.lua", "run": "lua5.4 {source}"}


@pytest.fixture
async def factory(engine: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LanguageSandbox]:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("installing languages needs mmdebstrap")
    monkeypatch.setenv("AGENTHUB_IMAGES", str(ROOT / ".cache" / "images"))
    store.build(tuple(LUA["install"]))
    assert store.import_image(LUA["install"]) == store.image_of(LUA["install"])
    made = LanguageSandbox()
    yield made
    await made.close()


@pytest.mark.parametrize("isolation", ["docker", "gvisor"])
async def test_a_program_runs_in_a_container(factory: LanguageSandbox, isolation: str) -> None:
    box = await factory.code_box(SandboxSpec(isolation=isolation, params=frozen({"language": LUA})))
    plain, output = await box.run("print(io.read('n') * 2)", stdin=b"21", timeout_s=10)
    assert (plain.value, output) == (0, b"42\n")
    plain, _ = await box.run("error('bad')", stdin=b"", timeout_s=10)
    assert plain.value == 1
    plain, output = await box.run("print(1) io.stdout:flush() while true do end", stdin=b"", timeout_s=1)
    assert plain.lost and output == b"1\n"
    await box.close()
