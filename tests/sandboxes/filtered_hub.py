"""A hub that runs under a seccomp filter, as in a container: `python -m tests.sandboxes.filtered_hub REFUSED_CALL`.

Prints how live boxes are copied, then what a box and, where it can be had, its copy compute.
"""

from __future__ import annotations

import asyncio
import errno
import struct
import sys

from agenthub.sandboxes.isolation import syscalls
from tests.sandboxes.boxes import python_factory, shown, small


def refuse(number: int) -> None:
    """Let every call through but one."""
    lines = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.load_filter(b"".join(struct.pack("=HBBI", *line) for line in lines))


async def main() -> None:
    async with python_factory() as factory:
        print(factory.capabilities().fork, factory.no_fork, sep="|")
        box = await factory.start(small())
        print(await shown(box, "x = 41; x + 1"), end="")
        if not factory.no_fork:
            (copy,) = await box.fork(1)
            print(await shown(copy, "x + 1, open('/proc/self/status').read().count('Seccomp:\\t2')"), end="")


if __name__ == "__main__":
    refuse(int(sys.argv[1]))
    asyncio.run(main())
