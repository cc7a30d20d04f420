"""The filter, run instruction by instruction, decides each call as its tables say."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.sandboxes.isolation import seccomp

X86_64 = 0xC000003E
ALLOW, KILL = 0x7FFF0000, 0x80000000
PROGRAM = [struct.unpack("=HBBI", seccomp.build()[at : at + 8]) for at in range(0, len(seccomp.build()), 8)]


def decide(number: int, *arguments: int, arch: int = X86_64) -> int:
    """What the kernel would answer: the classic BPF of struct seccomp_data."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, arch, 0, *(value & (1 << 64) - 1 for value in padded))
    at = accumulator = 0
    while True:
        code, yes, no, value = PROGRAM[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return int(value)
        elif code == 0x05:
            at += value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += yes if holds else no


def refused(number: int) -> int:
    return 0x00050000 | number


@given(st.integers(0, 0x3FFFFFFF))
def test_every_number_is_decided_by_its_table(number: int) -> None:
    if number in (16, 41, 56, 157, 302):
        return
    if number in seccomp.ALLOWED:
        assert decide(number) == ALLOW
    elif number in seccomp.REFUSED:
        assert decide(number) == refused(errno.EPERM)
    else:
        assert decide(number) == refused(errno.ENOSYS)


def test_the_listed_numbers_are_decided_by_their_tables() -> None:
    for number in seccomp.ALLOWED:
        assert decide(number) == ALLOW, seccomp.ALLOWED[number]
    for number in seccomp.REFUSED:
        assert decide(number) == refused(errno.EPERM), seccomp.REFUSED[number]
    assert not set(seccomp.ALLOWED) & set(seccomp.REFUSED)


@pytest.mark.parametrize("arch", [0x40000003, 0xC00000B7, 0])
def test_another_architecture_ends_the_process(arch: int) -> None:
    assert decide(0, arch=arch) == KILL


@given(st.integers(0x40000000, 0xFFFFFFFF))
def test_the_x32_table_is_shut(number: int) -> None:
    assert decide(number) == refused(errno.EPERM)


@pytest.mark.parametrize(
    ("number", "arguments", "allowed"),
    [
        (16, (0, 0x5401), True),
        (16, (0, 0x5412), False),
        (16, (0, 0x541C), False),
        (16, (0, (1 << 32) | 0x5412), False),
        (56, (0x11,), True),
        (56, (0x003D0F00,), True),
        (56, (0x10000011,), False),
        (56, (0x20000,), False),
        (56, (0x80,), False),
        (56, (0x8000,), False),
        (157, (15,), True),
        (157, (22,), False),
        (302, (0,), True),
        (302, (1,), False),
    ],
)
def test_arguments_decide_where_they_must(number: int, arguments: tuple[int, ...], allowed: bool) -> None:
    assert decide(number, *arguments) == (ALLOW if allowed else refused(errno.EPERM))


@pytest.mark.parametrize(
    ("family", "allowed"), [(1, True), (2, True), (10, True), (16, False), (17, False), (38, False), (40, False)]
)
def test_socket_families(family: int, allowed: bool) -> None:
    assert decide(41, family) == (ALLOW if allowed else refused(errno.EAFNOSUPPORT))
