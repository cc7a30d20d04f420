"""What boxes leave on the host while they live, by isolation: so that a test can see that nothing of theirs is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from agenthub.sandboxes.isolation.mold import FIRST_UID
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import groups_of

__all__ = ["Host", "HostOfContainers", "HostOfJail"]

_SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run")
_ROOTS = ("/workspace", "/.host", "/tmp/.host")


class Host(Protocol):
    """The side of boxes that is not in them."""

    def standing(self) -> object:
        """What must not change from before an attack to after it: who serves the boxes, and the mounts they share."""

    def left_of(self, boxes: list[Any]) -> list[str]:
        """What is still there of boxes that have ended."""

    def files(self) -> list[str]:
        """Files that boxes have made outside of themselves."""


class HostOfJail:
    """A supervisor, its molds and control groups."""

    def __init__(self, factory: PythonSandbox) -> None:
        self._factory = factory
        jail: Any = factory._isolation
        self._supervisor: int = jail._link._process.pid

    def standing(self) -> object:
        """The supervisor and its molds with the mounts of each; not the host's mounts, where others work beside us."""
        molds = sorted(pid for child in _children(self._supervisor) for pid in _children(child))
        alive = os.path.exists(f"/proc/{self._supervisor}/exe")
        ours = [line for line in _mounts(self._supervisor) if line.split()[4].startswith(_ROOTS)]
        return alive, ours, [(pid, _mounts(pid)) for pid in molds]

    def left_of(self, boxes: list[Any]) -> list[str]:
        """Control groups of the boxes: the kernel keeps one for as long as a process is in it."""
        paths = [Path(group, box.id) for group in groups_of(self._factory).values() for box in boxes]
        return [str(path) for path in paths if path.exists()]

    def files(self) -> list[str]:
        """Files of the users that only boxes have."""
        found = []
        for folder in filter(os.path.isdir, _SHARED_FOLDERS):
            with os.scandir(folder) as entries:
                found += [entry.path for entry in entries if entry.stat(follow_symlinks=False).st_uid >= FIRST_UID]
        return found


class HostOfContainers:
    """An engine and its containers."""

    def __init__(self, factory: PythonSandbox) -> None:
        isolation: Any = factory._isolation
        self._engine = isolation._engine

    def standing(self) -> object:
        """That the engine answers."""
        return self._engine.api.ping()

    def left_of(self, boxes: list[Any]) -> list[str]:
        """Containers of the boxes, in whatever state."""
        known = {row["Id"] for row in self._engine.api.containers(all=True)}
        return [box.id for box in boxes if box.id in known]

    def files(self) -> list[str]:
        """None that could be told from another's: a container has no folder of the host."""
        return []


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _mounts(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
