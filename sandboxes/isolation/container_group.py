"""The control group over all containers of one hub: what they may use of memory together.

The engine makes each container's group below it. That takes an engine on this machine whose driver is `cgroupfs`, and a
hierarchy that can be written; where one of them is missing, each container has its own limits and the sum has none.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agenthub.sandboxes.isolation.cgroups import start_time

__all__ = ["ContainerGroup", "why_not"]

_PREFIX = "agenthub-boxes."
_SHARE = 0.8
"""Of the engine's memory; the rest is the hub's and everybody else's."""


def why_not(url: str, facts: Mapping[str, Any]) -> str:
    """What is missing for a group over all containers; nothing where there can be one.

    Args:
        url: how the engine is reached.
        facts: what it says of itself.
    """
    if not url.startswith("unix://") or facts.get("KernelVersion") != platform.release():
        return "the engine is not on this machine"
    if facts.get("CgroupDriver") != "cgroupfs":
        return f"the engine's control groups are made by {facts.get('CgroupDriver') or 'nobody'}, not by itself"
    if _memory() is None:
        return "no memory control group can be written here"
    return ""


class ContainerGroup:
    """The group of this process's containers; every isolation of the process means the same one."""

    def __init__(self, engine_mb: int) -> None:
        pid = os.getpid()
        self.name = f"{_PREFIX}{pid}.{start_time(pid)}"
        self.memory_mb = max(1, int(_SHARE * engine_mb))
        """MiB that all boxes may use together."""

    @property
    def parent(self) -> str:
        """As the engine is told."""
        return f"/{self.name}"

    def ensure(self) -> None:
        """Make the group with its limit where it is not there. Raises OSError where that is refused."""
        point = _memory()
        if point is None or (point / self.name).is_dir():
            return
        (point / self.name).mkdir()
        size = str(self.memory_mb << 20)
        unified = (point / "cgroup.controllers").exists()
        for name in ("memory.max",) if unified else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            # Swap accounting is compiled out on some kernels.
            with contextlib.suppress(FileNotFoundError):
                (point / self.name / name).write_text(size, encoding="ascii")

    def remove(self) -> None:
        """Remove the group where no container is left in it; another isolation may still have some."""
        _removed(self.name)

    @staticmethod
    def sweep() -> None:
        """Remove the groups of hubs that are gone."""
        for point in _points():
            for path in point.glob(f"{_PREFIX}*"):
                parts = path.name.removeprefix(_PREFIX).split(".")
                if len(parts) == 2 and parts[0].isdigit() and str(start_time(int(parts[0]))) != parts[1]:
                    _removed(path.name)


def _removed(name: str) -> None:
    # The engine makes the parent in every hierarchy.
    for point in _points():
        with contextlib.suppress(OSError):
            (point / name).rmdir()


def _points() -> Iterator[Path]:
    """Where hierarchies are mounted from their roots, as an engine on this machine sees them."""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            fields = left.split()
            if right.startswith("cgroup") and fields[3] == "/":
                yield Path(fields[4])


def _memory() -> Path | None:
    """The writable hierarchy that has memory; under version 2 it hands memory on to its children."""
    for point in _points():
        if not os.access(point, os.W_OK):
            continue
        if (point / "memory.limit_in_bytes").exists():
            return point
        with contextlib.suppress(OSError):
            if "memory" in (point / "cgroup.controllers").read_text(encoding="ascii").split():
                (point / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
                return point
    return None
