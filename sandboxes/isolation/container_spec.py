"""What a container is created with: the same limits on every engine and runtime, and a label that says whose it is."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agenthub
from agenthub.errors import UnknownName
from agenthub.isolation import BoxSpec
from agenthub.sandboxes.isolation import container_relay
from agenthub.sandboxes.isolation.container_seccomp import profile
from agenthub.sandboxes.isolation.images import IMAGES

__all__ = [
    "OWNER",
    "USER",
    "WORKSPACE",
    "Held",
    "Overhead",
    "create_args",
    "order",
    "orphaned",
    "owner",
    "reference",
    "short",
]

OWNER = "agenthub.owner"
USER = 1000
WORKSPACE = "/workspace"
_IMPORTS = re.compile(r"^from (agenthub\.[\w.]+) import (?:\(([^)]*)\)|([^(\n]+))", re.MULTILINE)
_PLAIN = ("/bin/sh", "-c", "until cat >/dev/null 2>&1; do :; done")
"""Process 1 of a task's own image: reaps orphans, survives a kill of everything, ends with the hub's stream."""


def reference(image: str) -> str:
    """The engine's name of an image: short names are ours."""
    full = image if "/" in image or ":" in image else f"agenthub/{image}"
    return full if ":" in full.rpartition("/")[2] else f"{full}:latest"


def short(reference: str) -> str:
    """The name that `reference` makes a reference of."""
    ours = reference.removeprefix("agenthub/")
    return ours.removesuffix(":latest") if ours != reference else reference


def owner() -> dict[str, str]:
    """Which process this is, so that a later hub can tell whether it still lives."""
    return {OWNER: f"{_boot()} {_namespace()} {os.getpid()} {_started(os.getpid())}"}


def orphaned(label: str, *, running: bool) -> bool:
    """True where the owner was a process that this one could see and that is gone, or lived before the last boot."""
    parts = label.split()
    if len(parts) != 4:
        return False
    boot, namespace, pid, started = parts
    if boot != _boot():
        return not running
    return namespace == _namespace() and _started(int(pid)) != started


def order(spec: BoxSpec) -> dict[str, Any]:
    """What the relay is told to start.

    Raises:
        UnknownName: the image has no resident program, and no command is given.
    """
    if spec.argv:
        return {"argv": list(spec.argv)}
    if spec.image not in IMAGES:
        raise UnknownName("resident program for an image", spec.image, IMAGES)
    resident = IMAGES[spec.image].resident
    return {"modules": _modules(resident.split(":")[0]), "resident": resident}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """What a runtime itself takes out of a container's limits."""

    memory_mb: int = 0
    pids: int = 1
    """Process 1 is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What holds every container of an engine alike."""

    runtime: str = ""
    """The engine's default where empty."""
    overhead: Overhead = Overhead()
    seccomp: bool = True
    """The engine has seccomp; without it no profile can be given."""
    x86_64: bool = True
    parent: str = ""
    """The control group over all containers; the engine's own where empty."""

    def security(self, *, plain: bool) -> list[str]:
        """The engine's security options of one container."""
        filters = [f"seccomp={profile(plain=plain, x86_64=self.x86_64)}"] if self.seccomp else []
        return ["no-new-privileges", *filters]


def create_args(api: Any, spec: BoxSpec, held: Held, *, plain: bool, workspace: str = WORKSPACE) -> dict[str, Any]:
    """Arguments of the SDK's create_container."""
    limits = spec.limits
    memory = (limits.memory_mb + held.overhead.memory_mb) << 20
    space = f"rw,nosuid,nodev,size={limits.disk_mb}m,nr_inodes={limits.files},uid={USER},gid={USER},mode=0755"
    host = api.create_host_config(
        runtime=held.runtime or None,
        cgroup_parent=held.parent or None,
        network_mode="none",
        mem_limit=memory,
        memswap_limit=memory,
        pids_limit=limits.pids + held.overhead.pids,
        nano_cpus=int(limits.cpus * 1e9),
        read_only=True,
        tmpfs={workspace: f"{space},exec", "/tmp": f"{space},exec"},
        cap_drop=["ALL"],
        security_opt=held.security(plain=plain),
        ipc_mode="private",
        shm_size=min(limits.disk_mb, 16) << 20,
        ulimits=[
            {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        log_config={"Type": "none", "Config": {}},
        # As mounts and not as binds: a source that is not there is an error, and no new folder of the host.
        mounts=[
            {"Type": "bind", "Source": row.source, "Target": row.target, "ReadOnly": not row.writable}
            for row in spec.mounts
        ],
    )
    return {
        "image": reference(spec.image),
        "entrypoint": list(_PLAIN) if plain else ["python3", "-I", "-c", _relay()],
        "command": [],
        "user": f"{USER}:{USER}",
        "working_dir": workspace,
        "environment": {"HOME": workspace, "LANG": "C.UTF-8", "TMPDIR": "/tmp"} | dict(spec.env),
        "stdin_open": True,
        "hostname": "box",
        "labels": owner(),
        "host_config": host,
    }


@functools.cache
def _modules(name: str) -> Mapping[str, str]:
    """Source of a resident module and of what it imports of ours, by name."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        path = Path(agenthub.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
        if module in found or not path.is_file():
            continue
        found[module] = path.read_text(encoding="utf-8")
        for package, several, one in _IMPORTS.findall(found[module]):
            names = (several or one).split(",")
            waiting += [package, *(f"{package}.{name.split()[0]}" for name in names if name.strip())]
    return found


@functools.cache
def _relay() -> str:
    return Path(container_relay.__file__).read_text(encoding="utf-8")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "none"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; `gone` where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return "gone"
