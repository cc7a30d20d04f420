"""A box as its mold keeps it: the processes to end, the group to remove, and the pipe to tell the hub of the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from agenthub.sandboxes.isolation.cgroups import Group
from agenthub.sandboxes.isolation.rooms import Room

__all__ = ["Kept", "write_line"]

_GIVE_UP_S = 2.0
_WALL = 0x40000000


@dataclass(slots=True, eq=False)
class Kept:
    """One box. Its process 1 is this process's child; with a twin, its worker and the twin are too."""

    group: Group
    init: int
    pidfd: int
    status: int
    """Write end of the status pipe; the hub lets go of the other end to end the box."""
    worker: int = 0
    """0 where process 1 looks after the worker and the status pipe itself."""
    worker_fd: int = -1
    twin: int = 0
    room: Room | None = None
    usage: dict[str, float] = field(default_factory=dict)
    """Read when its last process has ended; empty before."""
    give_up: float = 0.0
    """When the hub is told of the end even though the group is still there (monotonic seconds)."""

    def end(self) -> None:
        """Begin to kill everything in the box."""
        self.group.thaw()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._end_twin()

    def reap_worker(self) -> int | None:
        """Exit code of a worker that has ended, negative for a signal; None where it is gone already."""
        pid, self.worker = self.worker, 0
        os.close(self.worker_fd)
        with contextlib.suppress(ChildProcessError):
            return os.waitstatus_to_exitcode(os.waitpid(pid, _WALL)[1])
        return None

    def ended(self) -> None:
        """Process 1 has ended, and with it the box."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.init, 0)
        self._end_twin()
        self.usage = self.group.usage()
        self.give_up = time.monotonic() + _GIVE_UP_S

    def finish(self) -> bool:
        """Reap the twin, remove the group, which may hold the last process a moment longer, and tell the hub."""
        if self.twin:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.twin, os.WNOHANG | _WALL)[0] == 0 and time.monotonic() < self.give_up:
                    return False
            self.twin = 0
        if not self.group.remove() and time.monotonic() < self.give_up:
            return False
        os.close(self.pidfd)
        write_line(self.status, {"usage": self.usage})
        os.close(self.status)
        return True

    def _end_twin(self) -> None:
        # It holds the memory of the box; a worker alone does not free it by ending.
        if self.twin:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.twin, signal.SIGKILL)


def write_line(descriptor: int, message: dict[str, Any]) -> None:
    """One line on a status pipe; nothing where nobody reads it."""
    with contextlib.suppress(OSError):
        os.write(descriptor, json.dumps(message).encode() + b"\n")
