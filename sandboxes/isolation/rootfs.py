"""The root that every box of a mold shares: read-only, with the interpreter, its libraries and a few devices.

A mold builds it once in a mount namespace of its own and moves into it; each box copies that namespace, so that a box
has five mounts and not the host's. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable

from agenthub.isolation import Mount
from agenthub.sandboxes.isolation import syscalls as sys_

__all__ = ["OLD_ROOT", "WORKSPACE", "enter", "hidden_process_table", "leave_host", "library_paths"]

WORKSPACE = "/workspace"
OLD_ROOT = "/.host"
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "dev/shm": "/tmp",
}
_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/false\nagent:x:1000:1000:agent:/workspace:/bin/false\n",
    "group": "root:x:0:\nagent:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1")


def library_paths() -> list[str]:
    """What this interpreter is made of: its standard library, its binary, and the folders of its shared libraries."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    binary = os.path.realpath(sys.executable)
    paths = {binary, os.path.join(sys.base_prefix, "lib", version)}
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if not path or " (deleted)" in path or ".so" not in os.path.basename(path):
                continue
            path = "/" + path
            if os.path.basename(path).startswith("libpython"):
                paths.add(path)
            else:
                paths.add(os.path.dirname(path))
    zones = "/usr/share/zoneinfo"
    if os.path.isdir(zones):
        paths.add(zones)
    for loader in _LOADERS:
        if os.path.exists(loader):
            # The folder by its real name, for the link at the root stays a link; the file may be a link of its own.
            paths.add(os.path.join(os.path.realpath(os.path.dirname(loader)), os.path.basename(loader)))
    return _outermost(paths)


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(paths):
        if not any(path == other or path.startswith(other + "/") for other in kept):
            kept.append(path)
    return kept


def enter(paths: Iterable[str], mounts: Iterable[Mount], *, rootless: bool) -> None:
    """Make the root and pivot into it; the host's root stays at OLD_ROOT until `leave_host`.

    The caller is alone in a mount namespace and may mount in it.
    """
    sources = {path: os.path.realpath(path) for path in paths}
    sys_.mount("none", "/", None, sys_.MS_REC | sys_.MS_PRIVATE)
    sys_.mount("tmpfs", "/tmp", "tmpfs", sys_.MS_NOSUID, "size=4m,nr_inodes=4096,mode=0755")
    os.mkdir("/tmp" + OLD_ROOT, 0o700)
    sys_.pivot_root("/tmp", "/tmp" + OLD_ROOT)
    os.chdir("/")
    for name in ("proc", "dev", "etc", "tmp", WORKSPACE[1:]):
        os.mkdir("/" + name, 0o755)
    for name, target in _LINKS.items():
        os.symlink(target, "/" + name)
    for name, text in _ETC.items():
        with open("/etc/" + name, "w", encoding="utf-8") as file:
            file.write(text)
    _copy_links()
    for path, source in sources.items():
        bind(source, path)
    _hide_packages()
    for row in mounts:
        bind(row.source, row.target, writable=row.writable)
    for name, numbers in _DEVICES.items():
        _device(name, numbers)
    if rootless:
        # A process table may be mounted in a user namespace only where a whole one is already in sight.
        sys_.mount(OLD_ROOT + "/proc", "/proc", None, sys_.MS_BIND | sys_.MS_REC)


def hidden_process_table() -> int:
    """A descriptor of a process table of this process's namespace that is mounted nowhere, so that no box sees it."""
    sys_.mount("proc", "/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    try:
        return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        sys_.umount("/proc", sys_.MNT_DETACH)


def leave_host() -> None:
    """Let go of the host's root and make what is left read-only."""
    sys_.umount(OLD_ROOT, sys_.MNT_DETACH)
    os.rmdir(OLD_ROOT)
    flags = sys_.MS_REMOUNT | sys_.MS_BIND | sys_.MS_RDONLY | sys_.MS_NOSUID
    sys_.mount("none", "/", None, flags)


def bind(source: str, target: str, *, writable: bool = False) -> None:
    """Show a host path at `target`, without set-uid programs and devices."""
    host = OLD_ROOT + source
    if stat.S_ISDIR(os.stat(host).st_mode):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    sys_.mount(host, target, None, sys_.MS_BIND | sys_.MS_REC)
    attributes = sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NODEV
    sys_.mount_setattr_recursive(target, attributes | (0 if writable else sys_.MOUNT_ATTR_RDONLY))


def _copy_links() -> None:
    """/lib and its like are links on most systems; the loader's path goes through them."""
    for name in ("lib", "lib64", "bin"):
        host = f"{OLD_ROOT}/{name}"
        if os.path.islink(host):
            os.symlink(os.readlink(host), "/" + name)
        elif name == "lib64" and os.path.isdir(host):
            bind("/lib64", "/lib64")


def _hide_packages() -> None:
    """Third-party packages beside the standard library are no part of a standard image."""
    os.mkdir("/.empty", 0o755)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for name in ("site-packages", "dist-packages"):
        path = os.path.join(sys.base_prefix, "lib", version, name)
        if os.path.isdir(path):
            sys_.mount("/.empty", path, None, sys_.MS_BIND)
            sys_.mount_setattr_recursive(path, sys_.MOUNT_ATTR_RDONLY | sys_.MOUNT_ATTR_NOSUID)


def _device(name: str, numbers: tuple[int, int]) -> None:
    path = "/dev/" + name
    with contextlib.suppress(PermissionError):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*numbers))
        os.chmod(path, 0o666)
        with contextlib.suppress(PermissionError):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            return
        os.unlink(path)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    sys_.mount(OLD_ROOT + path, path, None, sys_.MS_BIND)
