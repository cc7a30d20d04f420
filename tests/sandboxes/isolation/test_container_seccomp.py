"""The profile of a container decides as the jail's filter does, call by call, and has no rule that overlaps another."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.sandboxes.isolation import seccomp
from agenthub.sandboxes.isolation.container_seccomp import profile
from tests.sandboxes.isolation.test_seccomp import ALLOW, decide, refused

NAMES = {**seccomp.ALLOWED, **seccomp.REFUSED} | {number: it.name for number, it in seccomp.ARGUMENTS.items()}
PROFILES: dict[bool, dict[str, Any]] = {plain: json.loads(profile(plain=plain)) for plain in (False, True)}
WORDS = st.one_of(
    st.integers(0, 80),
    st.sampled_from([0x5412, 0x541C, 0x20000, 0x20008, 0x40000, 0x10000011, 0x8011, 0x003D0F00, 0xFFFFFFFF]),
    st.integers(0, (1 << 64) - 1),
    st.builds(lambda low, high: low | high << 32, st.sampled_from([0x5412, 0x541C, 40, 1, 22]), st.integers(0, 9)),
)


def answer(name: str, argument: int, *, plain: bool) -> int:
    """What the rules say of a call whose every argument is the same, as the filter's return value."""
    found = []
    for rule in PROFILES[plain]["syscalls"]:
        if name in rule["names"] and all(argument & it["value"] == it["valueTwo"] for it in rule.get("args", ())):
            found.append(ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else refused(rule["errnoRet"]))
    assert len(found) <= 1, f"{name}: rules overlap"
    return found[0] if found else refused(PROFILES[plain]["defaultErrnoRet"])


@given(st.sampled_from(sorted(NAMES)), WORDS)
def test_a_box_with_our_python_has_the_filter_of_the_jail(number: int, argument: int) -> None:
    assert answer(NAMES[number], argument, plain=False) == decide(number, *[argument] * 6)


@pytest.mark.parametrize(
    ("name", "argument", "answers"),
    [
        ("socket", 2, ALLOW),
        ("socket", 16, ALLOW),
        ("socket", 40, refused(errno.EAFNOSUPPORT)),
        ("socket", 38, refused(errno.EAFNOSUPPORT)),
        ("socket", 1 << 32 | 40, refused(errno.EAFNOSUPPORT)),
        ("ioctl", 0x5401, ALLOW),
        ("ioctl", 1 << 32 | 0x5412, refused(errno.EPERM)),
        ("clone", 0x8011, ALLOW),
        ("clone", 0x10000011, refused(errno.EPERM)),
        ("personality", 0x20000, ALLOW),
        ("personality", 0x40000, refused(errno.EPERM)),
        ("ptrace", 0, ALLOW),
        ("prctl", 22, ALLOW),
        ("mount", 0, refused(errno.EPERM)),
        ("bpf", 0, refused(errno.EPERM)),
        ("keyctl", 0, refused(errno.EPERM)),
        ("clone3", 0, refused(errno.ENOSYS)),
        ("io_uring_setup", 0, refused(errno.ENOSYS)),
    ],
)
def test_a_box_of_a_tasks_own_image_has_more_and_not_the_holes(name: str, argument: int, answers: int) -> None:
    assert answer(name, argument, plain=True) == answers


@given(st.sampled_from(["ioctl", "socket", "clone", "personality", "read"]), WORDS)
def test_no_two_rules_decide_one_call(name: str, argument: int) -> None:
    assert answer(name, argument, plain=True)


def test_only_one_table_of_calls_is_open() -> None:
    assert all(made["architectures"] == ["SCMP_ARCH_X86_64"] for made in PROFILES.values())
    assert "architectures" not in json.loads(profile(plain=True, x86_64=False))
