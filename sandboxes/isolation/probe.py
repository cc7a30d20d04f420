"""What this machine can do, layer by layer, tried in a process that ends at once. Starts no box."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

from agenthub.isolation import Layer, LayerState
from agenthub.sandboxes.isolation import cgroups, native, seccomp
from agenthub.sandboxes.isolation import syscalls as sys_

__all__ = ["layers", "missing"]

_KERNEL = (5, 12)


def layers() -> tuple[Layer, ...]:
    """Every layer of the jail, in the order in which a box needs them."""
    return (_platform(), _namespaces(), _users(), _seccomp(), *_groups(), _copies())


def missing() -> Layer | None:
    """The first layer without which there is no jail; None where there can be one."""
    return next((layer for layer in layers() if layer.state is LayerState.MISSING), None)


def _platform() -> Layer:
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    new_enough = found is not None and (int(found[1]), int(found[2])) >= _KERNEL
    if platform.system() != "Linux" or platform.machine() != "x86_64" or not new_enough:
        return Layer(
            name="kernel", state=LayerState.MISSING, detail=f"{name}; the jail needs Linux 5.12 or newer on x86_64"
        )
    return Layer(name="kernel", state=LayerState.OK, detail=name)


_TRY = (
    "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True); "
    "[sys.exit(os.strerror(ctypes.get_errno())) for step in sys.argv[1:] if libc.unshare(int(step))]"
)


def _tried(*steps: int) -> str:
    """Unshare in a process of its own: the error, or nothing where it works."""
    command = [sys.executable, "-I", "-S", "-c", _TRY, *map(str, steps)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return f"unshare: {done.stderr.strip()}" if done.returncode else ""


_ALL = (
    sys_.CLONE_NEWNS
    | sys_.CLONE_NEWPID
    | sys_.CLONE_NEWNET
    | sys_.CLONE_NEWIPC
    | sys_.CLONE_NEWUTS
    | sys_.CLONE_NEWCGROUP
)


def _namespaces() -> Layer:
    steps = (_ALL,) if os.geteuid() == 0 else (sys_.CLONE_NEWUSER, _ALL)
    error = _tried(*steps)
    if error:
        need = "CAP_SYS_ADMIN" if os.geteuid() == 0 else "unprivileged user namespaces (or start as root)"
        return Layer(name="namespaces", state=LayerState.MISSING, detail=f"{error}; needs {need}")
    return Layer(name="namespaces", state=LayerState.OK, detail="mount, pid, network, ipc, uts and cgroup of its own")


def _users() -> Layer:
    if os.geteuid() == 0:
        return Layer(name="users", state=LayerState.OK, detail="a user id of its own for every box")
    return Layer(
        name="users",
        state=LayerState.DEGRADED,
        detail="one user for all boxes, kept apart by a user namespace each; a user id each needs root",
    )


def _seccomp() -> Layer:
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
            actions = file.read().split()
    except OSError:
        actions = []
    if "errno" not in actions:
        return Layer(name="seccomp", state=LayerState.MISSING, detail="the kernel has no seccomp filters")
    detail = f"{len(seccomp.ALLOWED)} system calls allowed, all others refused"
    return Layer(name="seccomp", state=LayerState.OK, detail=detail)


def _copies() -> Layer:
    """Whether live boxes can be copied in place, as far as it can be told without trying."""
    cost = "copies of live boxes are made by replay, and a cold start takes longer"
    lacking = ""
    if os.geteuid() != 0:
        lacking = "needs root"
    elif _read("/proc/sys/kernel/yama/ptrace_scope") == "3":
        lacking = "kernel.yama.ptrace_scope is 3"
    elif native.find() is None and native.compiler() is None:
        lacking = "needs a C compiler once (cc, gcc or clang)"
    if lacking:
        return Layer(name="copies", state=LayerState.DEGRADED, detail=f"{lacking}; {cost}")
    return Layer(name="copies", state=LayerState.OK, detail="live boxes are copied in place")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _groups() -> tuple[Layer, ...]:
    costs = {
        "memory": "memory is limited by RLIMIT_AS for each process: a box may use that much times its processes",
        "pids": "processes are limited by RLIMIT_NPROC",
        "cpu": "a box may use every processor",
    }
    found = cgroups.describe(cgroups.find()) if platform.system() == "Linux" else {}
    rows = []
    for controller, cost in costs.items():
        version = found.get(controller)
        if version is None:
            rows.append(Layer(name=f"cgroup {controller}", state=LayerState.DEGRADED, detail=f"not writable; {cost}"))
        else:
            detail = f"version {version}"
            rows.append(Layer(name=f"cgroup {controller}", state=LayerState.OK, detail=detail))
    return tuple(rows)
