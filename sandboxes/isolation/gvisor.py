"""Boxes in containers whose kernel is gVisor's: system calls of a box do not reach the host's kernel."""

from __future__ import annotations

from agenthub.sandboxes.isolation.container_spec import Overhead
from agenthub.sandboxes.isolation.docker import Docker

__all__ = ["Gvisor"]


class Gvisor(Docker):
    """`Docker` with the runtime runsc, which the engine must have registered.

    The kernel of a box is a process in the same control group: its threads and memory are added to the limits, and a
    box that reaches one of them ends as a whole, where in `docker` a call fails or one process is killed.
    """

    name = "gvisor"
    runtime = "runsc"
    overhead = Overhead(memory_mb=32, pids=64)
