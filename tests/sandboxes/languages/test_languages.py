"""Languages: how they are declared, built once, and run in the jail."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.episodes import Workbench
from agenthub.errors import ConfigError, UserError
from agenthub.records import Call, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.languages import store
from agenthub.sandboxes.languages.language import Language
from agenthub.sandboxes.languages.sandbox import LanguageSandbox
from agenthub.suites.lint import lint
from agenthub.suites.load import load_suite, load_suites

ROOT = Path(__file__).parents[3]
LUA: dict[str, Any] = {"id": "lua", "install": ["lua5.4"], "source": "main.lua", "run": "lua5.4 {source}"}
C: dict[str, Any] = {
    "id": "c", "install": ["gcc", "libc6-dev"], "source": "main.c", "compile": "gcc -o main {source}", "run": "./main",
}  # fmt: skip


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Lua and C, installed once for this checkout."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("installing languages for the jail needs root and mmdebstrap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTHUB_IMAGES", str(ROOT / ".cache" / "images"))
        for language in (LUA, C):
            store.build(tuple(language["install"]))
        yield patch


@pytest.fixture
async def factory(built: Any) -> AsyncIterator[LanguageSandbox]:
    made = LanguageSandbox()
    yield made
    await made.close()


def spec(language: dict[str, Any]) -> SandboxSpec:
    return SandboxSpec(params=frozen({"language": language}))


async def test_both_languages_run_in_the_jail(factory: LanguageSandbox) -> None:
    lua = await factory.code_box(spec(LUA))
    plain, output = await lua.run("print(io.read('n') * 2)", stdin=b"21", timeout_s=10)
    assert (plain.value, output) == (0, b"42\n")
    c = await factory.code_box(spec(C))
    source = '#include <stdio.h>\nint main(void){int n;if(scanf("%d",&n)!=1)return 2;printf("%d\\n",n+1);return 0;}'
    plain, output = await c.run(source, stdin=b"41", timeout_s=20)
    assert (plain.value, output) == (0, b"42\n")
    plain, output = await c.run("int main(void){return 3;}", stdin=b"", timeout_s=20)
    assert plain.value == 3
    plain, _ = await c.run("int main(void){", stdin=b"", timeout_s=20)
    assert plain.error is not None and "does not compile: main.c" in plain.error
    for box in (lua, c):
        await box.close()


async def test_what_a_program_does_to_its_box_is_its_own_loss(factory: LanguageSandbox) -> None:
    box = await factory.code_box(spec(LUA))
    plain, _ = await box.run("while true do end", stdin=b"", timeout_s=0.5)
    assert plain.lost and plain.error is not None and "time was up" in plain.error
    plain, _ = await box.run("os.execute('kill -9 -1')\nprint(1)", stdin=b"", timeout_s=5)
    plain, _ = await box.run("print(io.open('/etc/shadow') or io.open('/root/x') or 'none')", stdin=b"", timeout_s=5)
    assert plain.lost or plain.value == 0
    await box.close()


async def test_the_tool_shows_output_errors_and_how_it_ended(factory: LanguageSandbox) -> None:
    session = await factory.start(SandboxSpec(files=frozen({"in.txt": b"7"}), params=frozen({"language": LUA})))
    code = "print(io.open('in.txt'):read('n')); io.open('out.txt', 'w'):write('x'):close(); error('bad')"
    observation = await session.call(Call(id="1", tool="", arguments=frozen({"code": code})), timeout_s=5)
    assert observation.failed and observation.text.startswith("7\nlua5.4: main.lua:1: bad")
    assert observation.text.endswith("run: exit status 1\n")
    assert await session.read_file("out.txt") == b"x"
    observation = await session.call(Call(id="2", tool="", arguments=frozen({"code": 3})), timeout_s=5)
    assert observation.failed and "must be text" in observation.text
    await session.close()


async def test_the_suite_that_ships_is_won_by_its_oracle_only(built: Any) -> None:
    bench = Workbench()
    try:
        assert await lint(load_suites()["languages"].tasks, bench) == []
    finally:
        await bench.close()


async def test_a_language_that_is_not_installed_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTHUB_IMAGES", str(tmp_path))
    factory = LanguageSandbox()
    with pytest.raises(UserError, match=r"language 'lua' is not installed here; `agenthub images build SUITE`"):
        await factory.code_box(spec(LUA))
    image = {"id": "x", "image": "me/x", "source": "a", "run": "a"}
    with pytest.raises(UserError, match="comes in the container image 'me/x'"):
        await factory.code_box(spec(image))


def test_building_without_the_tool_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTHUB_IMAGES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install mmdebstrap"):
        store.build(("lua5.4",))


def test_a_root_is_named_by_what_is_in_it() -> None:
    assert store.key_of(["b", "a", "a"]) == store.key_of(["a", "b"]) != store.key_of(["a"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one setting, `language`"),
        ({"language": {**LUA, "sorce": "x"}}, "did you mean 'source'"),
        ({"language": {**LUA, "source": "../x"}}, "expected the name of a file"),
        ({"language": {**LUA, "image": "x"}}, "install or image"),
        ({"language": {**LUA, "run": "'"}}, "No closing quotation"),
        ({"language": {"id": "x"}}, "has no 'source'"),
        ({"language": LUA, "x": 1}, "one setting"),
    ],
)
def test_what_is_no_language_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Language.of(given)


def test_a_command_is_words_and_never_a_shell() -> None:
    language = Language.of({"language": {**LUA, "run": "lua5.4 '{source}' $HOME ; ls"}})
    assert language.command(language.run) == ["lua5.4", "main.lua", "$HOME", ";", "ls"]


SUITE = """schema: agenthub.suite/1
suite: {{name: s, version: "1"}}
languages:
  - {{id: lua, install: [lua5.4], source: main.lua, run: "lua5.4 {{source}}"}}
{more}
tasks:
  - id: a
    prompt: {{user: "?"}}
    tools: [{{uses: language, config: {{language: {tool}}}}}]
    verifier: {{checks: [{{uses: io_cases, args: {{language: {check}, cases: [{{stdout: "1"}}]}}}}]}}
"""


@pytest.mark.parametrize(
    ("more", "tool", "check", "message"),
    [
        ("", "lau", "lua", "'lau'; did you mean 'lua'"),
        ("", "lua", "lau", "'lau'; did you mean 'lua'"),
        ("  - {id: lua, image: x, source: a, run: a}", "lua", "lua", "two languages are named 'lua'"),
        ("  - {id: b, source: a, run: a}", "lua", "lua", "give install or image"),
        ("  - {id: b, install: ['x; rm'], source: a, run: a}", "lua", "lua", "install"),
    ],
)
def test_a_suite_says_where_a_language_is_wrong(tmp_path: Path, more: str, tool: str, check: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.format(more=more, tool=tool, check=check), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"s\.yaml:\d+: .*{message}"):
        load_suite(path)


def test_the_language_reaches_the_tool_and_the_check(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.format(more="", tool="lua", check="lua"), encoding="utf-8")
    (task,) = load_suite(path).tasks
    assert Language.of(task.tools[0].spec.params) == Language.of({"language": task.languages["lua"]})
    assert "languages" not in task.public()


async def test_many_boxes_run_at_once(factory: LanguageSandbox) -> None:
    boxes = await asyncio.gather(*(factory.code_box(spec(LUA)) for _ in range(6)))
    done = await asyncio.gather(*(box.run("print(1)", stdin=b"", timeout_s=10) for box in boxes))
    assert [output for _, output in done] == [b"1\n"] * 6
    for box in boxes:
        await box.close()
