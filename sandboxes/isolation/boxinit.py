"""What runs in a freshly forked process until it is process 1 of a box, and the worker beside it.

Order matters: group, namespaces, mounts, limits, then everything that could do those things is given up, and only then
does the worker run code. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from agenthub.sandboxes.isolation import syscalls as sys_
from agenthub.sandboxes.isolation.cgroups import Caps, Group
from agenthub.sandboxes.isolation.rootfs import WORKSPACE

__all__ = ["INHERITED", "Birth", "become_init", "caps_of", "limit_all"]

INHERITED = sys_.CLONE_NEWIPC | sys_.CLONE_NEWUTS | sys_.CLONE_NEWNET
"""Namespaces that a mold makes ahead for its next box, because making them takes longer than all the rest."""
_STACK_BYTES = 8 << 20
_HELLO = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What a new process needs to become a box."""

    name: str
    limits: dict[str, Any]
    """The fields of isolation.Limits."""
    argv: tuple[str, ...]
    env: dict[str, str]
    group: Group
    cgroup_memory: bool
    """False where no control group holds the memory: rlimits must."""
    control: int
    """Descriptor of the box's end of its stream socket."""
    status: int
    """Write end of the status pipe."""
    life: int
    """Read end of a pipe that ends when the supervisor does."""
    priority: int
    """Nice value of the box."""
    uid: int | None
    """User of the worker; None where the mold lives in a user namespace of one user."""
    init_uid: int
    filter: bytes
    resident: Callable[[int], NoReturn]


def become_init(birth: Birth) -> NoReturn:
    """Set up the box, start its worker, tell the hub, and stay as its process 1."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.setpriority(os.PRIO_PROCESS, 0, birth.priority)
        _enclose(birth)
        out, out_inside = os.pipe2(os.O_CLOEXEC)
        err, err_inside = os.pipe2(os.O_CLOEXEC)
        folder = os.open(WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        worker = os.fork()
        if worker == 0:
            _become_worker(birth, out_inside, err_inside)
        os.close(out_inside)
        os.close(err_inside)
        worker_fd, own_fd = os.pidfd_open(worker), os.pidfd_open(1)
        _step_down(birth)
        _hello(birth, {"box": birth.name}, [out, err, folder, own_fd, worker_fd])
        for descriptor in (out, err, folder, own_fd, birth.control):
            os.close(descriptor)
        _watch(birth, worker, worker_fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            _hello(birth, {"error": str(error)}, [])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def _hello(birth: Birth, message: dict[str, Any], descriptors: list[int]) -> None:
    """The first frame on the box's socket; the worker writes there only after the hub has asked it something."""
    data = json.dumps(message).encode()
    with socket.socket(fileno=os.dup(birth.control)) as channel:
        socket.send_fds(channel, [_HELLO.pack(len(data)) + data], descriptors)


def _enclose(birth: Birth) -> None:
    limits = birth.limits
    birth.group.enter(caps_of(limits))
    # A mold holds three descriptors for each box it looks after; none of them is this box's business.
    _close_others({0, 1, 2, birth.control, birth.status, birth.life})
    sys_.unshare(sys_.CLONE_NEWNS | sys_.CLONE_NEWCGROUP)
    owner = f",uid={birth.uid},gid={birth.uid}" if birth.uid is not None else ""
    data = f"size={limits['disk_mb']}m,nr_inodes={limits['files']},mode=0700{owner}"
    flags = sys_.MS_NOSUID | sys_.MS_NODEV
    sys_.mount("tmpfs", WORKSPACE, "tmpfs", flags, data)
    sys_.mount("tmpfs", "/tmp", "tmpfs", flags, data)
    table = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sys_.mount("proc", "/proc", "proc", flags | sys_.MS_NOEXEC, "subset=pid,hidepid=2")
    except PermissionError:
        if birth.uid is not None:
            raise
        # Inside a container whose engine covers parts of /proc nobody may mount one: no table, rather than another's.
        sys_.mount("tmpfs", "/proc", "tmpfs", flags | sys_.MS_NOEXEC | sys_.MS_RDONLY, "size=4k,nr_inodes=2,mode=0555")
    socket.sethostname("box")
    os.chdir(WORKSPACE)
    if birth.uid is None:
        # Counted apart from the other boxes of the same user.
        _own_user_namespace(table)
    os.close(table)
    _limit(limits, cgroup_memory=birth.cgroup_memory)
    if birth.uid is None:
        # The new user namespace brought a full bounding set; elsewhere the mold has emptied it.
        sys_.capability_drop(bounding=True)
    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    if birth.uid is not None:
        os.setgroups([])
    sys_.load_filter(birth.filter)


def caps_of(limits: dict[str, Any], ours: int = 1) -> Caps:
    """Limits of a box's group: more tasks than it is promised, because `ours` are not its program's."""
    return Caps(memory_mb=limits["memory_mb"], pids=limits["pids"] + ours, cpus=limits["cpus"])


def _own_user_namespace(table: int) -> None:
    """Leave the mold's user namespace; `table` is the process table that the mold sees."""
    uid, gid = os.getuid(), os.getgid()
    sys_.unshare(sys_.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=table)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)


def limit_all() -> None:
    """Limits of one process that are the same in every box; a mold sets them once and its boxes inherit them."""
    fixed = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 64 << 10,
        resource.RLIMIT_MSGQUEUE: 800 << 10,
        resource.RLIMIT_SIGPENDING: 256,
        resource.RLIMIT_STACK: _STACK_BYTES,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    for kind, value in fixed.items():
        _lower(kind, value)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))


def _limit(limits: dict[str, Any], *, cgroup_memory: bool) -> None:
    """Limits of one process; the group's are over all of them."""
    _lower(resource.RLIMIT_NOFILE, limits["open_files"])
    _lower(resource.RLIMIT_NPROC, limits["pids"])
    _lower(resource.RLIMIT_FSIZE, limits["disk_mb"] << 20)
    if not cgroup_memory:
        _lower(resource.RLIMIT_AS, limits["memory_mb"] << 20)


def _step_down(birth: Birth) -> None:
    """Process 1 keeps nothing: no capability, no user of the worker's, no descriptor but the ones it watches."""
    if birth.uid is not None:
        os.setresgid(birth.init_uid, birth.init_uid, birth.init_uid)
        os.setresuid(birth.init_uid, birth.init_uid, birth.init_uid)
    sys_.capability_drop(bounding=False)
    sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)


def _become_worker(birth: Birth, out: int, err: int) -> NoReturn:
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        control = fcntl.fcntl(birth.control, fcntl.F_DUPFD, 16)
        for wanted, descriptor in enumerate((null, out, err)):
            os.dup2(descriptor, wanted)
        os.dup2(control, 3)
        sys_.close_range(4)
        if birth.uid is not None:
            os.setresgid(birth.uid, birth.uid, birth.uid)
            os.setresuid(birth.uid, birth.uid, birth.uid)
        sys_.capability_drop(bounding=False)
        sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
        os.umask(0o022)
        os.environ.clear()
        os.environ.update({"HOME": WORKSPACE, "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"} | birth.env)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if birth.argv:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.set_inheritable(3, True)
            os.execvpe(birth.argv[0], list(birth.argv), dict(os.environ))
        os.set_inheritable(3, False)
        birth.resident(3)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"cannot run: {error}\n".encode())
    os._exit(127)


def _watch(birth: Birth, worker: int, worker_fd: int) -> NoReturn:
    """Reap orphans until the worker ends, the hub lets go of the status pipe, or the supervisor is gone."""
    ended: list[int] = []

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == worker:
                    ended.append(status)

    keep = {worker_fd, birth.status, birth.life}
    _close_others(keep)
    signal.signal(signal.SIGCHLD, reap)
    events = select.poll()
    events.register(worker_fd, select.POLLIN)
    events.register(birth.status, 0)
    events.register(birth.life, select.POLLIN)
    reap()
    while not ended:
        ready = {descriptor for descriptor, _ in events.poll()}
        if birth.life in ready:
            # Our side's doing, not the program's: the hub must know the difference.
            _tell(birth, {"lost": "the supervisor is gone"})
        if ready & {birth.status, birth.life}:
            os._exit(0)
        reap()
    _tell(birth, {"worker": os.waitstatus_to_exitcode(ended[0])})
    os._exit(0)


def _tell(birth: Birth, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(birth.status, json.dumps(message).encode() + b"\n")


def _close_others(keep: set[int]) -> None:
    first = 0
    for descriptor in sorted(keep):
        if descriptor > first:
            sys_.close_range(first, descriptor - 1)
        first = descriptor + 1
    sys_.close_range(first)
