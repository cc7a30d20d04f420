"""What holds a container in beyond the engine's defaults: our profile of system calls, and one limit over all boxes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.errors import UserError
from agenthub.isolation import BoxSpec, LayerState, Limits
from agenthub.sandboxes.isolation.container_exec import ExecSpec
from agenthub.sandboxes.isolation.container_group import ContainerGroup, why_not
from agenthub.sandboxes.isolation.docker import Docker

pytestmark = pytest.mark.docker

LIMITS = Limits(memory_mb=128, pids=16, cpus=0.5)
PROBE = r"""
import ctypes, errno, json, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    result = libc.syscall(*map(ctypes.c_long, args))
    return 0 if result >= 0 else ctypes.get_errno()
def family(number):
    try:
        socket.socket(number, socket.SOCK_DGRAM if number != 40 else socket.SOCK_STREAM).close()
        return 0
    except OSError as error:
        return error.errno
def in_child(act):
    child = os.fork()
    if child == 0:
        os._exit(0 if act() == os.getpid() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def old_table():
    # mov eax, 20 (getpid of 32-bit programs); int 0x80; ret
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex("b814000000cd80c3"))
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print(json.dumps({
    "families": {number: family(number) for number in (1, 2, 10, 16, 17, 38, 40)},
    "tables": [in_child(act) for act in (os.getpid, old_table, lambda: libc.syscall(0x40000000 + 39))],
    "tiocsti": [call(16, 0, 0x5412, 0), call(16, 0, 0x1_0000_5412, 0)],
    "clone": [call(56, 0x10000011, 0, 0, 0, 0), call(435, 0, 0)],
    "refused": {name: call(number, 0, 0, 0, 0, 0) for name, number in
                (("mount", 165), ("bpf", 321), ("keyctl", 250), ("perf_event_open", 298), ("userfaultfd", 323))},
    "getpid": call(39),
    "ptrace": call(101, 17, 0, 0, 0),
}))
"""
_NO_FAMILY = 97


@pytest.fixture
async def docker(python_image: str) -> AsyncIterator[Docker]:
    made = Docker()
    try:
        await made.open()
    except UserError as error:
        pytest.skip(str(error))
    yield made
    await made.close()


async def _probed(box: Any) -> dict[str, Any]:
    done = await box.exec(ExecSpec(argv=("python3", "-c", PROBE), head_bytes=1 << 14), timeout_s=30)
    assert done.code == 0, bytes(done.err.head)
    found: dict[str, Any] = json.loads(bytes(done.out.head))
    return found


def _closed(found: dict[str, Any]) -> None:
    """What no box may do, whatever its image."""
    assert {number: found["families"][number] for number in ("17", "38", "40")} == dict.fromkeys(
        ("17", "38", "40"), _NO_FAMILY
    )
    assert found["tables"] == [0, -signal.SIGSYS, -signal.SIGSYS]
    assert found["tiocsti"] == [1, 1] and found["clone"] == [1, 38]
    assert found["refused"] == dict.fromkeys(found["refused"], 1)


async def test_a_box_with_our_python_has_the_jails_list(docker: Docker) -> None:
    box = await docker.spawn(BoxSpec(image="python", argv=("sleep", "60"), limits=LIMITS))
    found = await _probed(box)
    _closed(found)
    assert [found["families"][number] for number in ("1", "2", "10", "16")] == [0, 0, 0, _NO_FAMILY]
    assert (found["getpid"], found["ptrace"]) == (0, 1)


async def test_a_box_of_a_tasks_own_image_has_the_engines_list_without_its_holes(docker: Docker) -> None:
    box = await docker.spawn_plain(BoxSpec(image="agenthub/base", limits=LIMITS), workspace="/repo")
    found = await _probed(box)
    _closed(found)
    assert [found["families"][number] for number in ("1", "2", "10", "16")] == [0, 0, 0, 0]
    assert found["getpid"] == 0 and found["ptrace"] != 38


async def test_all_boxes_have_one_limit_together(docker: Docker, api: Any) -> None:
    if reason := why_not(os.environ["DOCKER_HOST"], api.info()):
        pytest.skip(reason)
    box = await docker.spawn(BoxSpec(image="python", argv=("sleep", "60"), limits=LIMITS))
    group = ContainerGroup(api.info()["MemTotal"] >> 20)
    assert api.inspect_container(box.id)["HostConfig"]["CgroupParent"] == group.parent
    (held,) = [path for path in _groups(group.name) if (path / box.id).is_dir() and _limit(path) is not None]
    assert _limit(held) == group.memory_mb << 20 and _limit(held / box.id) == LIMITS.memory_mb << 20
    assert box.usage().peak_mb > 0
    await box.kill()
    await docker.close()
    assert _groups(group.name) == []


def _no_process() -> int:
    return next(pid for pid in range(4_000_000, 100, -1) if not Path(f"/proc/{pid}").exists())


def _groups(name: str) -> list[Path]:
    return [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]


def _limit(path: Path) -> int | None:
    for name in ("memory.limit_in_bytes", "memory.max"):
        if (path / name).exists():
            return int((path / name).read_text(encoding="ascii"))
    return None


async def test_a_group_that_a_dead_hub_left_is_removed(docker: Docker, api: Any) -> None:
    if reason := why_not(os.environ["DOCKER_HOST"], api.info()):
        pytest.skip(reason)
    group = ContainerGroup(64)
    group.name = f"agenthub-boxes.{_no_process()}.1"
    group.ensure()
    (left,) = _groups(group.name)
    assert _limit(left) == 51 << 20
    ContainerGroup.sweep()
    assert not left.exists()


@pytest.mark.parametrize(
    ("url", "driver", "kernel", "told"),
    [
        ("tcp://10.0.0.1:2375", "cgroupfs", os.uname().release, "not on this machine"),
        ("unix:///x", "cgroupfs", "6.6.12-linuxkit", "not on this machine"),
        ("unix:///x", "systemd", os.uname().release, "made by systemd"),
    ],
)
def test_an_engine_that_can_have_no_group_over_its_boxes_is_told_why(
    url: str, driver: str, kernel: str, told: str
) -> None:
    assert told in why_not(url, {"CgroupDriver": driver, "KernelVersion": kernel})


async def test_the_layers_say_what_holds_all_boxes(docker: Docker, api: Any) -> None:
    layers = {layer.name: layer for layer in docker.layers()}
    reason = why_not(os.environ["DOCKER_HOST"], api.info())
    assert layers["budget"].state is (LayerState.DEGRADED if reason else LayerState.OK)
    assert (reason or "for all boxes together") in layers["budget"].detail
    assert "AF_VSOCK" in layers["seccomp"].detail
