"""What every isolation keeps, run over each one that this machine has."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agenthub.errors import HostFault, UserError
from agenthub.isolation import Box, BoxSpec, Isolation, LayerState, Limits, Mount
from agenthub.registry import registry
from agenthub.sandboxes.isolation.ready import readable
from tests.sandboxes.boxes import need_jail

SHELL = BoxSpec(image="python", limits=Limits(memory_mb=128))


def program(code: str, **fields: object) -> BoxSpec:
    """A box that runs Python source in place of the resident program."""
    argv = (os.path.realpath(sys.executable), "-I", "-S", "-c", code)
    return BoxSpec(image="python", argv=argv, limits=Limits(memory_mb=128), **fields)  # type: ignore[arg-type]


async def output(box: Box) -> str:
    """Everything a box writes until it ends."""
    await box.ended()
    data = b""
    while chunk := os.read(box.streams()[0], 65536):
        data += chunk
    return data.decode()


@pytest.fixture(params=["jail"])
async def isolation(request: pytest.FixtureRequest) -> AsyncIterator[Isolation]:
    need_jail()
    made: Isolation = registry("isolation").load(request.param)()
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def test_a_program_runs_and_its_exit_status_is_told(isolation: Isolation) -> None:
    box = await isolation.spawn(program("print('hello'); raise SystemExit(7)"))
    assert await output(box) == "hello\n"
    end = await box.kill()
    assert (end.code, end.oom, end.host_fault) == (7, False, False)


async def test_a_signal_is_told_as_a_negative_code(isolation: Isolation) -> None:
    box = await isolation.spawn(program("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    end = await box.ended()
    assert end.code == -11 and "SIGSEGV" in end.reason


async def test_memory_over_the_limit_ends_the_box_and_says_so(isolation: Isolation) -> None:
    box = await isolation.spawn(program("x = bytearray(1 << 30)\nfor i in range(0, 1 << 30, 4096): x[i] = 1"))
    end = await box.ended()
    assert end.oom and "memory" in end.reason and not end.host_fault


async def test_kill_ends_a_box_again_and_again(isolation: Isolation) -> None:
    box = await isolation.spawn(SHELL)
    first, second = await box.kill(), await box.kill()
    assert first == second and first.code is None and not first.host_fault


async def test_a_soft_signal_is_an_interrupt(isolation: Isolation) -> None:
    code = "import time\ntry:\n print('up', flush=True)\n time.sleep(60)\nexcept KeyboardInterrupt: raise SystemExit(3)"
    box = await isolation.spawn(program(code))
    await readable(box.streams()[0])
    await box.signal_soft()
    assert (await box.ended()).code == 3
    await box.kill()
    await box.signal_soft()


async def test_the_socket_reaches_the_resident_program(isolation: Isolation) -> None:
    box = await isolation.spawn(program("import os; os.write(3, os.read(3, 9)[::-1])"))
    os.write(box.fileno(), b"abc")
    await readable(box.fileno())
    assert os.read(box.fileno(), 9) == b"cba"


async def test_the_environment_is_only_what_was_asked_for(isolation: Isolation) -> None:
    os.environ["AGENTHUB_TEST_SECRET"] = "do not show"
    try:
        box = await isolation.spawn(program("import os; print(sorted(os.environ.items()))", env={"ASKED": "for"}))
        text = await output(box)
    finally:
        del os.environ["AGENTHUB_TEST_SECRET"]
    assert "('ASKED', 'for')" in text and "SECRET" not in text and "do not show" not in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "a").write_text("from outside")
    (tmp_path / "a").chmod(0o644)
    return tmp_path


async def test_a_mount_is_shown_read_only(isolation: Isolation, folder: Path) -> None:
    code = "print(open('/data/a').read())\ntry: open('/data/b', 'w')\nexcept OSError as error: print(error.errno)"
    box = await isolation.spawn(program(code, mounts=(Mount(source=str(folder), target="/data"),)))
    # EROFS, or EACCES where the kernel asks for rights first.
    assert await output(box) in ("from outside\n30\n", "from outside\n13\n")


async def test_files_go_in_and_come_out(isolation: Isolation) -> None:
    box = await isolation.spawn(SHELL)
    await box.write_file("a/b/c.bin", b"\0\1" * 100)
    await box.write_file("d", b"")
    assert await box.read_file("a/b/c.bin", max_bytes=1000) == b"\0\1" * 100
    assert await box.list_files(most=10) == ["a/b/c.bin", "d"]
    assert len(await box.list_files(most=1)) == 1
    with pytest.raises(UserError, match="200 bytes"):
        await box.read_file("a/b/c.bin", max_bytes=199)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\0b", "missing"])
async def test_a_path_out_of_the_workspace_is_refused(isolation: Isolation, path: str) -> None:
    box = await isolation.spawn(SHELL)
    with pytest.raises(UserError):
        await box.read_file(path, max_bytes=10)


async def test_usage_is_told_before_and_after_the_end(isolation: Isolation) -> None:
    box = await isolation.spawn(program("sum(range(3_000_000))"))
    await box.ended()
    used = box.usage()
    assert used.cpu_s >= 0.0 and used.peak_mb >= 0
    if all(layer.state is LayerState.OK for layer in isolation.layers()):
        assert used.cpu_s > 0.01 and used.peak_mb > 0


async def test_boxes_at_once_are_apart(isolation: Isolation) -> None:
    code = "import os, socket; print(os.getpid(), os.getuid(), os.listdir('.'), open('mine', 'w').write('x'))"
    boxes = await asyncio.gather(*(isolation.spawn(program(code)) for _ in range(8)))
    texts = [await output(box) for box in boxes]
    assert all(text.startswith("2 ") and "[]" in text for text in texts)
    assert len({box.id for box in boxes}) == 8


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (BoxSpec(image="pyton"), "did you mean 'python'"),
        (BoxSpec(image="python", network="web"), "network 'web'"),
        (BoxSpec(image="python", limits=Limits(memory_mb=1 << 30)), "memory_mb"),
        (BoxSpec(image="python", limits=Limits(cpus=1e6)), "cpus"),
        (BoxSpec(image="python", mounts=(Mount(source="/no/such/path", target="/x"),)), "/no/such/path"),
    ],
)
async def test_what_cannot_be_had_is_refused_by_name(isolation: Isolation, spec: BoxSpec, words: str) -> None:
    with pytest.raises(UserError, match=words):
        await isolation.spawn(spec)
    assert (await (await isolation.spawn(SHELL)).kill()).code is None


async def test_nothing_starts_after_the_end(isolation: Isolation) -> None:
    await isolation.close()
    with pytest.raises(HostFault):
        await isolation.spawn(SHELL)


def test_layers_are_told_without_starting_anything() -> None:
    layers = registry("isolation").load("jail")().layers()
    assert {layer.name for layer in layers} >= {"kernel", "namespaces", "users", "seccomp", "cgroup memory"}
    assert all(layer.detail for layer in layers)
