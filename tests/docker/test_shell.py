"""The shell sandbox: tasks in images of their own, whose repositories were made here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agenthub.episodes import Episode, Workbench
from agenthub.errors import BoxLost, ForkRefused, UserError
from agenthub.isolation import Limits
from agenthub.records import Call, Message, Outcome, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.shell.sandbox import ShellSandbox
from agenthub.suites.task import Check, Task, TaskLimits, ToolUse, Verifier
from agenthub.wire import Action, CallIn
from tests.docker.conftest import Build
from tests.docker.repositories import REPOSITORIES, Repository, write

pytestmark = pytest.mark.docker

RLE = REPOSITORIES[0]


@pytest.fixture(scope="package")
def images(build: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An image for each repository."""
    folder = tmp_path_factory.mktemp("repositories")
    made = {}
    for repository in REPOSITORIES:
        root = write(repository, folder)
        (root / "Dockerfile").write_text((folder / f"{repository.name}.Dockerfile").read_text(), encoding="utf-8")
        (root / ".dockerignore").write_text("Dockerfile\n.dockerignore\n", encoding="utf-8")
        made[repository.name] = build(f"agenthub/test-{repository.name}", root / "Dockerfile", root)
    return made


def spec(isolation: str = "docker", **params: Any) -> SandboxSpec:
    settings = {"workdir": "/repo"} | params
    return SandboxSpec(image="test-rle", isolation=isolation, limits=Limits(memory_mb=256), params=frozen(settings))


@pytest.fixture
async def factory(images: dict[str, str]) -> AsyncIterator[ShellSandbox]:
    made = ShellSandbox()
    await made.open()
    yield made
    await made.close()


async def run(session: Any, command: str, timeout_s: float = 10) -> tuple[str, bool]:
    call = Call(id="1", tool="shell", arguments=frozen({"command": command}))
    observation = await session.call(call, timeout_s=timeout_s)
    return observation.text, observation.failed


@pytest.mark.parametrize("isolation", ["docker", "gvisor"])
async def test_files_last_and_the_rest_does_not(factory: ShellSandbox, isolation: str) -> None:
    session = await factory.start(spec(isolation))
    assert (await run(session, "pwd; ls; id -u; git_dir=1; cd /"))[0].split() == [
        "/repo", "README.md", "rle", "tests", "1000",
    ]  # fmt: skip
    assert (await run(session, 'pwd; echo "[$git_dir]"; echo new > made; rm README.md')) == ("/repo\n[]\n", False)
    assert (await run(session, "cat made; cat README.md; false"))[0] == (
        "new\ncat: README.md: No such file or directory\nexit status 1\n"
    )
    assert await session.read_file("made") == b"new\n"
    await session.write_file("deep/file", b"\x00\xff")
    assert (await run(session, "od -An -tx1 deep/file"))[0].split() == ["00", "ff"]
    assert "rle/codec.py" in await session.list_files()
    changed = {change.path: change for change in await session.changes()}
    assert set(changed) == {"README.md", "made", "deep", "deep/file"}
    assert changed["README.md"].removed and changed["made"].data == b"new\n"
    await session.close()


@pytest.mark.parametrize("isolation", ["docker", pytest.param("gvisor", marks=pytest.mark.slow)])
async def test_copies_have_the_files_and_go_their_own_ways(factory: ShellSandbox, isolation: str) -> None:
    session = await factory.start(spec(isolation))
    await run(session, "echo before > made; rm README.md; ln -s made link")
    first, second = await session.fork(2)
    await run(first, "echo first > made")
    assert (await run(second, "cat link; ls"))[0].split() == ["before", "link", "made", "rle", "tests"]
    assert (await run(session, "cat made"))[0] == "before\n"
    assert {change.path for change in await second.changes()} == {"README.md", "made", "link"}
    await run(session, "sleep 1000 >/dev/null 2>&1 &")
    with pytest.raises(ForkRefused, match="programs still run"):
        await session.fork(1)


@pytest.mark.parametrize("isolation", ["docker", pytest.param("gvisor", marks=pytest.mark.slow)])
async def test_a_command_whose_time_is_up_is_killed_with_its_children(factory: ShellSandbox, isolation: str) -> None:
    session = await factory.start(spec(isolation))
    text, failed = await run(session, "(sleep 1000 &) ; echo begun; sleep 1000", timeout_s=1.5)
    assert failed and text == "begun\nkilled after 1.5 s, with all that ran beside it\n"
    left = await run(session, "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done | grep -c 'sleep 100[0]'")
    assert left[0].startswith("0")
    # A child that keeps the output open does not hold the answer back.
    assert await run(session, "sleep 1000 & echo on", timeout_s=5) == ("on\n", False)
    await session.close()


async def test_output_keeps_both_ends_and_is_harmless(factory: ShellSandbox) -> None:
    session = await factory.start(spec(shown_bytes=200))
    text, _ = await run(session, "printf '\\033[31mred\\0'; seq 1 100000")
    assert text.startswith("\\x1b[31mred\\x001\n2\n") and text.endswith("99999\n100000\n")
    assert "bytes cut" in text and len(text) < 300
    await session.close()


async def test_paths_that_leave_the_workspace_are_refused(factory: ShellSandbox) -> None:
    session = await factory.start(spec())
    await run(session, "ln -s /etc/passwd link; ln -s /etc folder; mkfifo pipe")
    for path in ("link", "folder/passwd", "pipe", "rle", "../etc/passwd", "/etc/passwd", "missing", ""):
        with pytest.raises(UserError, match=r"file|path"):
            await session.read_file(path)
    assert "pipe" not in await session.list_files()
    await session.close()


async def test_what_a_policy_does_to_its_box_is_its_own_fault(factory: ShellSandbox) -> None:
    session = await factory.start(spec())
    assert (await run(session, "kill -9 1; kill -9 -1; echo on"))[0] == "on\n"
    assert (await run(session, "touch /usr/bin/x || touch /etc/x || touch /x"))[1]
    text, _ = await run(session, "head -c 200M /dev/zero 2>/dev/null > big; stat -c %s big; rm big")
    assert 0 < int(text) <= 64 << 20
    await session._box._box.kill()
    with pytest.raises(BoxLost):
        await run(session, "true")


async def test_what_cannot_be_had_is_refused_by_name(factory: ShellSandbox) -> None:
    with pytest.raises(UserError, match="isolation 'jail' cannot start"):
        await factory.start(SandboxSpec(image="test-rle", isolation="jail"))
    with pytest.raises(UserError, match="no image 'agenthub/test-rel:latest'; did you mean"):
        await factory.start(SandboxSpec(image="test-rel", isolation="docker"))
    with pytest.raises(UserError, match="no folder '/nowhere'"):
        await factory.start(spec(workdir="/nowhere"))
    with pytest.raises(UserError, match="did you mean 'workdir'"):
        await factory.start(spec(workdri="/repo"))
    with pytest.raises(UserError, match="expected an absolute path"):
        await factory.start(spec(workdir="repo"))


def task(repository: Repository, isolation: str = "docker", **args: Any) -> Task:
    """The task of a repository: its tests are hidden, the fix is the oracle."""
    settings: dict[str, Any] = {
        "command": repository.command,
        "files": [{"path": path, "content": text} for path, text in repository.tests.items()],
        "expect": repository.expect,
    } | ({"pattern": repository.pattern} if repository.pattern else {})
    use = SandboxSpec(image=f"test-{repository.name}", isolation=isolation, params=frozen({"workdir": "/repo"}))
    return Task(
        id=repository.name,
        suite="repositories",
        split="test",
        messages=(Message(role="user", content="The tests fail. Repair the program."),),
        protocol="native",
        tools=(ToolUse(name="shell", uses="shell", spec=use),),
        verifier=Verifier(checks=(Check(id="tests", uses="shell_tests", args=frozen(settings | args)),)),
        limits=TaskLimits(max_turns=2, turn_seconds=90, verify_seconds=180),
    )


async def play(made: Task, command: str) -> tuple[float | None, Outcome, str]:
    """One command, then the end; what the episode is worth."""
    bench = Workbench()
    try:
        episode = Episode(made, bench, id="e", group="g", member=0)
        await episode.open()
        call = Action(calls=[CallIn(tool="shell", arguments={"command": command})])
        await episode.step(call, timeout_s=None, generation=None)
        if episode.trajectory is None:
            await episode.step(Action(answer="done"), timeout_s=None, generation=None)
        assert episode.trajectory is not None
        return episode.trajectory.reward, episode.trajectory.outcome, episode.trajectory.reason
    finally:
        await bench.close()


@pytest.mark.parametrize("repository", REPOSITORIES, ids=lambda repository: repository.name)
async def test_the_fix_wins_and_doing_nothing_does_not(images: dict[str, str], repository: Repository) -> None:
    fixed, nothing = await asyncio.gather(play(task(repository), repository.fix), play(task(repository), "true"))
    assert fixed[:2] == (1.0, Outcome.OK), fixed
    assert nothing[:2] == (0.0, Outcome.OK), nothing


async def test_the_fix_wins_in_gvisor(images: dict[str, str]) -> None:
    fixed = await play(task(RLE, "gvisor"), RLE.fix)
    assert fixed[:2] == (1.0, Outcome.OK), fixed


CHEATS = {
    "tests removed": "rm -rf tests",
    "tests emptied": "mkdir -p tests; echo > tests/test_codec.py",
    "tests are a link": "rm -rf tests; ln -s /tmp tests",
    "tests are a file": "rm -rf tests; echo > tests",
    "site customised": "printf 'import os\\nos._exit(0)\\n' | tee sitecustomize.py usercustomize.py conftest.py",
    "runner shadowed by a module": "printf 'import os\\nos._exit(0)\\n' > unittest.py",
    "exit in the program": "printf 'import os\\nos._exit(0)\\n' > rle/__init__.py",
    "runner shadowed on the path": "mkdir -p bin; printf '#!/bin/sh\\nexit 0\\n' > bin/python3; chmod +x bin/python3",
    "workspace filled": "head -c 100M /dev/zero > big",
    "inodes spent": "i=0; while mkdir d$i 2>/dev/null; do i=$((i+1)); done",
    "box killed": "kill -9 -1; kill -9 1",
    "background work": "(while true; do echo > tests/test_codec.py; done) &",
    "strange names": "touch -- '-C' '--checkpoint=1' '--checkpoint-action=exec=sh x' \"$(printf 'a\\nb')\"",
}


_SLOW = {"tests emptied", "tests are a file", "inodes spent", "runner shadowed on the path", "strange names"}


@pytest.mark.parametrize(
    "cheat",
    [pytest.param(cheat, id=name, marks=[pytest.mark.slow] * (name in _SLOW)) for name, cheat in CHEATS.items()],
)
async def test_what_does_not_repair_does_not_win(images: dict[str, str], cheat: str) -> None:
    reward, outcome, reason = await play(task(RLE), cheat)
    assert (reward, outcome) == (0.0, Outcome.OK), reason


async def test_a_share_of_the_tests_is_a_share_of_the_reward(images: dict[str, str]) -> None:
    half = "sed -i 's/sorted(text)/text/; s/char \\* count/char/' rle/codec.py"
    assert (await play(task(RLE, partial=True), half))[0] == 0.5
    assert (await play(task(RLE), half))[0] == 0.0
