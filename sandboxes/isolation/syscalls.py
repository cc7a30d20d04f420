"""The Linux calls that the standard library of Python 3.11 does not wrap. Owns no policy.

Every function raises OSError with the errno of the failed call. Standard library only: the supervisor uses it.
"""

from __future__ import annotations

import ctypes
import os
import struct

__all__ = [
    "AT_EMPTY_PATH",
    "capability_drop",
    "close_range",
    "load_filter",
    "mount",
    "mount_setattr_recursive",
    "openat2",
    "pidfd_getfd",
    "pivot_root",
    "prctl",
    "setns",
    "umount",
    "unshare",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 22, 38
SECCOMP_MODE_FILTER = 2

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 1, 2, 4, 8
# The same numbers on x86_64 and on every newer port: they joined after the tables were unified.
SYS_OPENAT2, SYS_MOUNT_SETATTR, SYS_CLOSE_RANGE, SYS_PIDFD_GETFD = 437, 442, 436, 438
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAP_LAST = 40

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _done(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the named namespaces for new ones."""
    _done(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespace behind a descriptor."""
    _done(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    _done(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        f"mount {kind or 'bind'} on {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _done(_libc.umount2(target.encode(), ctypes.c_int(flags)), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    number = SYS_PIVOT_ROOT[os.uname().machine]
    _done(_libc.syscall(ctypes.c_long(number), new.encode(), old.encode()), "pivot_root")


def mount_setattr_recursive(target: str, attributes: int) -> None:
    """Set mount attributes on a whole tree (Linux 5.12)."""
    block = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _done(
        _libc.syscall(
            ctypes.c_long(SYS_MOUNT_SETATTR),
            ctypes.c_int(AT_FDCWD),
            target.encode(),
            ctypes.c_uint(AT_RECURSIVE),
            block,
            ctypes.c_size_t(len(block)),
        ),
        f"mount_setattr {target}",
    )


def close_range(first: int, last: int = 0x7FFFFFFF) -> None:
    """Close every descriptor from `first` to `last` (Linux 5.9)."""
    _done(
        _libc.syscall(ctypes.c_long(SYS_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0)),
        "close_range",
    )


def openat2(folder: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` under the folder descriptor under resolve rules (Linux 5.6)."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _done(
        _libc.syscall(
            ctypes.c_long(SYS_OPENAT2),
            ctypes.c_int(folder),
            os.fsencode(path),
            how,
            ctypes.c_size_t(len(how)),
        ),
        f"open {path!r}",
    )


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A descriptor of another process, as one of ours (Linux 5.6)."""
    return _done(
        _libc.syscall(ctypes.c_long(SYS_PIDFD_GETFD), ctypes.c_int(pidfd), ctypes.c_int(number), ctypes.c_uint(0)),
        f"descriptor {number} of another process",
    )


def prctl(option: int, value: int = 0) -> None:
    """prctl(2) with one argument."""
    _done(
        _libc.prctl(
            ctypes.c_int(option),
            ctypes.c_ulong(value),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        ),
        f"prctl {option}",
    )


def capability_drop(*, bounding: bool) -> None:
    """Give up every capability of this process; with `bounding`, also what an exec could gain."""
    if bounding:
        for capability in range(_CAP_LAST + 1):
            _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
        return
    header = struct.pack("=Ii", 0x20080522, 0)
    _done(_libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)), "capset")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def load_filter(program: bytes) -> None:
    """Load a seccomp filter (an array of struct sock_filter) into this process; it cannot be taken off."""
    block = _Program(len(program) // 8, program)
    _done(
        _libc.prctl(
            ctypes.c_int(PR_SET_SECCOMP),
            ctypes.c_ulong(SECCOMP_MODE_FILTER),
            ctypes.byref(block),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        ),
        "seccomp",
    )
