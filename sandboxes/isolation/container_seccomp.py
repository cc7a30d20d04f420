"""The system-call filter of a container, as the profile that an engine takes; made of the jail's own tables.

An engine's default profile lets a box open AF_VSOCK, which no network namespace stops, and make the calls of 32-bit
programs. A box with our Python has the jail's list. A box of a task's own image runs whatever is in there: it has the
engine's default list for a process without capabilities, less those holes.

A profile compares 64 bits where the kernel looks at 32, so every condition here is masked; what is "none of these" is
written as the blocks of numbers around them, as with the addresses of networks.
"""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from agenthub.sandboxes.isolation.seccomp import ALLOWED, ARGUMENTS, NEW_NAMESPACES, REFUSED, Argument

__all__ = ["profile"]

_PLAIN = """
adjtimex cachestat clock_adjtime fanotify_mark fremovexattr fsetxattr get_thread_area io_cancel io_destroy io_getevents
io_pgetevents io_setup io_submit ioprio_set landlock_add_rule landlock_create_ruleset landlock_restrict_self
lremovexattr lsetxattr memfd_secret modify_ldt name_to_handle_at pkey_alloc pkey_free pkey_mprotect prctl prlimit64
process_mrelease process_vm_readv process_vm_writev ptrace remap_file_pages removexattr sched_getattr sched_setattr
sched_setparam sched_setscheduler seccomp set_thread_area setxattr vmsplice
"""
"""What the engine's default allows beyond the jail's list; with ptrace as on every kernel since 4.8."""
_MISSING = """
cachestat clone3 futex_requeue futex_wait futex_wake io_pgetevents io_uring_enter io_uring_register io_uring_setup
landlock_add_rule landlock_create_ruleset landlock_restrict_self map_shadow_stack memfd_secret pkey_alloc pkey_free
pkey_mprotect process_mrelease sched_getattr
"""
"""Calls for which libraries have another way where the kernel does not know them, and only then. Engines before 23
answer EPERM whatever default a profile names."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK, which reaches no further than the box's network namespace."""
_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_WORD = 0xFFFFFFFF
Block = tuple[int, int]
"""(mask, value): the 32-bit numbers x with x & mask == value."""


@functools.cache
def profile(*, plain: bool, x86_64: bool = True) -> str:
    """The profile as JSON.

    Args:
        plain: for a task's own image.
        x86_64: the engine's processor; elsewhere names that it does not have are skipped by the engine.
    """
    arguments = {argument.name: argument for argument in ARGUMENTS.values()}
    allowed = set(ALLOWED.values())
    if plain:
        allowed |= set(_PLAIN.split())
        arguments = {
            "clone": Argument(name="clone", index=0, bits=NEW_NAMESPACES, error=errno.EPERM),
            "ioctl": arguments["ioctl"],
            "personality": Argument(name="personality", index=0, only=_PERSONALITIES, error=errno.EPERM),
            "socket": Argument(name="socket", index=0, only=_FAMILIES, error=errno.EAFNOSUPPORT),
        }
    refused = set(REFUSED.values()) - allowed - set(arguments)
    rules: list[dict[str, Any]] = [
        {"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"},
        {"names": sorted(refused), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
        {"names": sorted({*_MISSING.split()} - allowed), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
    ]
    for argument in arguments.values():
        rules += _rules(argument)
    made: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENOSYS, "syscalls": rules}
    if x86_64:
        # No other: a call through another table ends the process.
        made["architectures"] = ["SCMP_ARCH_X86_64"]
    return json.dumps(made, separators=(",", ":"))


def _rules(argument: Argument) -> Iterator[dict[str, Any]]:
    """Rules of one call that never overlap: in a profile, the order of rules decides nothing."""
    if argument.bits:
        allowed, refused = [(argument.bits, 0)], list(_any_of(argument.bits))
    else:
        named = [(_WORD, value) for value in argument.only or argument.never]
        others = list(_around(argument.only or argument.never))
        allowed, refused = (named, others) if argument.only else (others, named)
    for block in allowed:
        yield {"names": [argument.name], "action": "SCMP_ACT_ALLOW", "args": [_condition(argument.index, block)]}
    for block in refused:
        condition = _condition(argument.index, block)
        error = {"action": "SCMP_ACT_ERRNO", "errnoRet": argument.error}
        yield {"names": [argument.name], **error, "args": [condition]}


def _condition(index: int, block: Block) -> dict[str, Any]:
    mask, value = block
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _any_of(bits: int) -> Iterator[Block]:
    """Numbers with one of the bits, by the lowest one that is set."""
    below = 0
    for bit in (1 << at for at in range(32) if bits >> at & 1):
        yield below | bit, bit
        below |= bit


def _around(values: Sequence[int], length: int = 0, prefix: int = 0) -> Iterator[Block]:
    """The numbers that are none of the values, as blocks with a common beginning of `length` bits."""
    mask = _WORD ^ (_WORD >> length)
    inside = [value for value in values if value & mask == prefix]
    if not inside:
        yield mask, prefix
    elif length < 32:
        for bit in (0, 1):
            yield from _around(inside, length + 1, prefix | bit << (31 - length))
