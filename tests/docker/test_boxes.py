"""Boxes in containers: what the engine says they are, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import Any

import pytest

from agenthub.errors import UserError
from agenthub.isolation import BoxSpec, LayerState, Limits
from agenthub.sandboxes.isolation.container_exec import Window
from agenthub.sandboxes.isolation.container_spec import OWNER, orphaned, owner, reference, short
from tests.docker.conftest import ROOT

pytestmark = pytest.mark.docker

ECHO = """
import os
while data := os.read(3, 65536):
    if data == b"die":
        os._exit(7)
    if data == b"eat":
        hoard = bytearray(1 << 30)
    if data == b"print":
        print("x" * 3_000_000, flush=True)
    os.write(3, data)
"""
SPEC = BoxSpec(image="python", argv=("python3", "-c", ECHO), limits=Limits(memory_mb=128, pids=16, cpus=0.5))


class Talk:
    """Bytes to and from the program of a box."""

    def __init__(self, box: Any) -> None:
        self.socket = socket.socket(fileno=os.dup(box.fileno()))
        self.socket.setblocking(False)

    async def ask(self, data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.socket, data)
        async with asyncio.timeout(20):
            return await loop.sock_recv(self.socket, 65536)

    def close(self) -> None:
        self.socket.close()


async def _containers(api: Any, **filters: str) -> list[Any]:
    mine = {"label": f"{OWNER}={owner()[OWNER]}"}
    rows: list[Any] = await asyncio.to_thread(api.containers, all=True, filters=filters or mine)
    return rows


async def test_a_box_is_what_the_engine_says_it_is(isolation: Any, api: Any) -> None:
    box = await isolation.spawn(SPEC)
    facts = await asyncio.to_thread(api.inspect_container, box.id)
    host, config = facts["HostConfig"], facts["Config"]
    assert facts["Id"] == box.id and facts["State"]["Running"]
    assert host["NetworkMode"] == "none" and host["ReadonlyRootfs"] and not host["Privileged"]
    memory = (128 + isolation.overhead.memory_mb) << 20
    assert (host["Memory"], host["MemorySwap"]) == (memory, memory)
    assert (host["PidsLimit"], host["NanoCpus"]) == (16 + isolation.overhead.pids, 500_000_000)
    assert host["CapDrop"] == ["ALL"] and "no-new-privileges" in host["SecurityOpt"]
    assert facts["Mounts"] == [] and not host["Binds"] and set(host["Tmpfs"]) == {"/workspace", "/tmp"}
    assert config["User"] == "1000:1000" and host["LogConfig"]["Type"] == "none"
    assert host["Runtime"] == (isolation.runtime or "runc")
    await box.kill()
    assert await _containers(api, id=box.id) == []


async def test_a_program_talks_and_its_output_comes_before_its_reply(isolation: Any) -> None:
    box = await isolation.spawn(SPEC)
    talk = Talk(box)
    assert await talk.ask(b"hello") == b"hello"
    seen = 0
    asking = asyncio.ensure_future(talk.ask(b"print"))
    while not asking.done():
        seen += _drain(box.streams()[0])
        await asyncio.sleep(0.001)
    seen += _drain(box.streams()[0])
    assert asking.result() == b"print" and seen == 3_000_001
    talk.close()


def _drain(descriptor: int) -> int:
    count = 0
    try:
        while data := os.read(descriptor, 65536):
            count += len(data)
    except BlockingIOError:
        pass
    return count


async def test_files_go_in_and_out_and_nothing_else(isolation: Any) -> None:
    box = await isolation.spawn(SPEC)
    await box.write_file("deep/er/a.bin", bytes(range(256)))
    await box.write_file("b", b"")
    assert await box.read_file("deep/er/a.bin", max_bytes=256) == bytes(range(256))
    assert await box.list_files(most=10) == ["b", "deep/er/a.bin"]
    assert await box.list_files(most=1) != []
    for path in ("../etc/passwd", "/etc/passwd", "a//b", "", "missing", "deep", "x\0y"):
        with pytest.raises(UserError, match=r"file|path"):
            await box.read_file(path, max_bytes=10)
    with pytest.raises(UserError, match="at most 255"):
        await box.read_file("deep/er/a.bin", max_bytes=255)


@pytest.mark.parametrize(("word", "code", "oom"), [(b"die", 7, False), (b"eat", -signal.SIGKILL, True)])
async def test_an_end_of_its_own_doing_is_no_fault_of_ours(isolation: Any, word: bytes, code: int, oom: bool) -> None:
    box = await isolation.spawn(SPEC)
    heard: list[bool] = []
    box.on_end(lambda: heard.append(True))
    talk = Talk(box)
    await talk.ask(word)
    end = await box.ended()
    assert (end.code, end.oom, end.host_fault) == (code, oom, False) and heard == [True]
    assert await box.kill() == end
    talk.close()


async def test_an_interrupt_reaches_the_program(isolation: Any) -> None:
    box = await isolation.spawn(SPEC)
    talk = Talk(box)
    await talk.ask(b"ready")
    await box.signal_soft()
    assert (await box.ended()).code == -signal.SIGINT
    talk.close()


async def test_a_name_that_is_not_there_comes_with_the_nearest_and_with_what_builds_it(isolation: Any) -> None:
    with pytest.raises(UserError, match=r"'agenthub/pyton:latest'; did you mean 'python'.*images build"):
        await isolation.spawn(BoxSpec(image="pyton"))
    with pytest.raises(UserError, match="no network 'host'"):
        await isolation.spawn(BoxSpec(image="python", network="host"))


@pytest.mark.parametrize("moment", [0.0, 0.03, 0.1, 0.3])
async def test_a_cancelled_start_leaves_nothing(isolation: Any, api: Any, moment: float) -> None:
    spawning = asyncio.ensure_future(isolation.spawn(SPEC))
    await asyncio.sleep(moment)
    if spawning.cancel():
        with pytest.raises(asyncio.CancelledError):
            await spawning
    else:  # a fast engine: it was made by then
        assert moment > 0
        await spawning.result().kill()
    for _ in range(200):
        await asyncio.sleep(0.05)
        if not isolation._boxes and not await _containers(api):
            return
    raise AssertionError("a container is left")


async def test_an_engine_that_goes_away_is_a_fault_of_ours(
    python_image: str, engine: str, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agenthub.sandboxes.isolation.docker import Docker

    path = f"/tmp/agenthub-proxy-{os.getpid()}.sock"
    proxy = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROXY, path, engine.removeprefix("unix://"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert proxy.stdout is not None and await proxy.stdout.readline() == b"ready\n"
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        isolation = Docker()
        await isolation.open()
        box = await isolation.spawn(SPEC)
        proxy.kill()
        end = await box.ended()
        assert end.host_fault and end.code is None
        await isolation.close()
        await asyncio.to_thread(api.remove_container, box.id, force=True)
    finally:
        if proxy.returncode is None:
            proxy.kill()
        await proxy.wait()
        os.unlink(path)


PROXY = """
import asyncio, sys
async def copy(a, b):
    while data := await a.read(65536):
        b.write(data)
        await b.drain()
    b.write_eof()
async def serve(reader, writer):
    up, down = await asyncio.open_unix_connection(sys.argv[2])
    await asyncio.gather(copy(reader, down), copy(up, writer), return_exceptions=True)
    writer.close()
async def main():
    async with await asyncio.start_unix_server(serve, sys.argv[1]) as server:
        print("ready", flush=True)
        await server.serve_forever()
asyncio.run(main())
"""

HUB = """
import asyncio
from agenthub.isolation import BoxSpec
from agenthub.sandboxes.isolation.docker import Docker
async def main():
    isolation = Docker()
    await isolation.open()
    box = await isolation.spawn(BoxSpec(image="python", argv=("sleep", "1000")))
    print(box.id, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_a_hub_killed_outright_leaves_no_process_and_the_next_one_removes_the_rest(
    python_image: str, api: Any
) -> None:
    from agenthub.sandboxes.isolation.docker import Docker

    hub = await asyncio.create_subprocess_exec(sys.executable, "-c", HUB, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert hub.stdout is not None
    container = (await hub.stdout.readline()).decode().strip()
    assert (await asyncio.to_thread(api.inspect_container, container))["State"]["Running"]
    hub.kill()
    await hub.wait()
    for _ in range(100):
        if not (await asyncio.to_thread(api.inspect_container, container))["State"]["Running"]:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("the box outlived its hub")
    isolation = Docker()
    await isolation.open()
    assert await _containers(api, id=container) == []
    await isolation.close()


async def test_a_fork_bomb_stays_in_its_box(isolation: Any) -> None:
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass\n"
    bystander = await isolation.spawn(SPEC)
    await isolation.spawn(BoxSpec(image="python", argv=("python3", "-c", bomb), limits=SPEC.limits))
    talk = Talk(bystander)
    await asyncio.sleep(0.5)
    assert await talk.ask(b"still here") == b"still here"
    talk.close()


async def test_the_layers_say_what_holds_a_box(isolation: Any) -> None:
    rows = {layer.name: layer for layer in isolation.layers()}
    assert rows["runtime"].detail == (isolation.runtime or "runc")
    assert rows["engine"].state is LayerState.OK and rows["seccomp"].state is LayerState.OK


async def test_without_an_engine_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("docker")
    from agenthub.sandboxes.isolation.docker import Docker

    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(UserError, match=r"no Docker engine answers at unix:///nowhere.*DOCKER_HOST"):
        await Docker().open()
    (layer,) = Docker().layers()
    assert layer.state is LayerState.MISSING
    monkeypatch.setenv("DOCKER_HOST", "ssh://there")
    with pytest.raises(UserError, match="expected unix:// or tcp://"):
        await Docker().open()


def test_an_owner_is_orphaned_once_its_process_is_gone() -> None:
    mine = owner()[OWNER]
    assert not orphaned(mine, running=True)
    boot, namespace, _, started = mine.split()
    assert orphaned(f"{boot} {namespace} 4194305 {started}", running=True)
    assert not orphaned(f"{boot} elsewhere 4194305 {started}", running=True)
    assert not orphaned(f"other {namespace} 4194305 {started}", running=True)
    assert orphaned(f"other {namespace} 4194305 {started}", running=False)
    assert not orphaned("nonsense", running=False)


def test_short_image_names_are_ours() -> None:
    assert reference("python") == "agenthub/python:latest"
    assert reference("a/b") == "a/b:latest"
    assert reference("debian:12") == "debian:12"
    assert reference("host:5000/a/b") == "host:5000/a/b:latest"
    for name in ("python", "a/b:latest", "debian:12", "languages:x"):
        assert reference(short(reference(name))) == reference(name)


def test_a_window_keeps_both_ends_and_counts_the_rest() -> None:
    window = Window(3, 2)
    for piece in (b"ab", b"cde", b"f", b"ghij"):
        window.add(piece)
    assert (bytes(window.head), bytes(window.tail), window.dropped) == (b"abc", b"ij", 5)


async def test_the_end_of_an_isolation_takes_what_is_still_being_started(python_image: str, api: Any) -> None:
    from agenthub.sandboxes.isolation.docker import Docker

    isolation = Docker()
    await isolation.open()
    spawning = [asyncio.ensure_future(isolation.spawn(SPEC)) for _ in range(3)]
    await asyncio.sleep(0.2)
    for start in spawning:
        start.cancel()
    await isolation.close()
    assert await _containers(api) == []
    await asyncio.gather(*spawning, return_exceptions=True)
