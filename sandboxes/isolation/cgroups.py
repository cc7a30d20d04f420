"""Control groups of boxes, version 1 and 2: one parent group a supervisor, one child group a box.

Standard library only.
A supervisor's parent is named `agenthub.<pid>.<start time>`, so that a later one can tell whose groups are left over.
Paths go through descriptors opened before the root changes, because a mold no longer sees /sys/fs/cgroup.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Caps", "Group", "Hierarchy", "Parent", "find", "sweep"]

_WANTED = ("memory", "pids", "cpu", "cpuacct", "freezer")
_PERIOD_US = 20_000
"""A box that is over its share of the processor stands still for milliseconds of this, and so does not hold up others
for long with what it had saved."""
_PREFIX = "agenthub."


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Hard limits of one group."""

    memory_mb: int
    pids: int
    cpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted hierarchy that this process may write to."""

    version: int
    controllers: frozenset[str]
    path: str
    """The group of this process, as a path on the host."""


def find() -> list[Hierarchy]:
    """The hierarchies that hold memory, pids, cpu or the freezer and can be written; empty where there is none."""
    own = _own_groups()
    found: list[Hierarchy] = []
    for fields, kind, options in _mounts():
        point, root = fields[4], fields[3]
        if kind == "cgroup2":
            path = _below(point, root, own.get("", "/"))
            controllers = _read_words(os.path.join(path, "cgroup.controllers"))
            version = 2
        elif kind == "cgroup":
            names = options.split(",")
            first = next((name for name in _WANTED if name in names), None)
            path = _below(point, root, own.get(first, "/")) if first else ""
            controllers, version = set(names), 1
        else:
            continue
        useful = frozenset(controllers & set(_WANTED))
        known = frozenset().union(*(row.controllers for row in found))
        if useful - known and path and os.access(path, os.W_OK):
            found.append(Hierarchy(version=version, controllers=useful, path=path))
    return found


def _mounts() -> Iterator[tuple[list[str], str, str]]:
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            kind, _, options = right.split()[:3]
            yield left.split(), kind, options


def _own_groups() -> dict[str, str]:
    """Path of this process's group by controller name; the key is empty for version 2."""
    groups: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        for line in lines:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.split(","):
                groups[name] = path
    return groups


def _below(point: str, root: str, path: str) -> str:
    inside = os.path.relpath(path, root) if path.startswith(root) else "."
    return os.path.normpath(os.path.join(point, inside))


def _read_words(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return set(file.read().split())
    except OSError:
        return set()


@contextlib.contextmanager
def _opened(path: str, parent: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(folder: int, name: str, value: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _read(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 4096).decode()
    finally:
        os.close(descriptor)


class Parent:
    """The group over all boxes of one supervisor."""

    def __init__(self, name: str, folders: list[tuple[Hierarchy, int]]) -> None:
        self.name, self._folders = name, folders

    @classmethod
    def create(cls, hierarchies: list[Hierarchy]) -> Parent:
        """Make the group in each hierarchy. A hierarchy that cannot give its controllers is left out."""
        name = f"{_PREFIX}{os.getpid()}.{start_time(os.getpid())}"
        folders: list[tuple[Hierarchy, int]] = []
        for row in hierarchies:
            path = os.path.join(row.path, name)
            with contextlib.suppress(OSError):
                if row.version == 2:
                    _delegate(row)
                os.mkdir(path, 0o755)
                folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if row.version == 2:
                    _write(folder, "cgroup.subtree_control", _plus(row.controllers - {"cpuacct"}))
                folders.append((row, folder))
        return cls(name, folders)

    @property
    def controllers(self) -> frozenset[str]:
        """What is really limited here."""
        return frozenset().union(*(row.controllers for row, _ in self._folders))

    def paths(self) -> dict[str, str]:
        """Path on the host of the parent group, by controller."""
        return {name: os.path.join(row.path, self.name) for row, _ in self._folders for name in row.controllers}

    def box(self, name: str) -> Group:
        """The group of one box; nothing is made yet."""
        return Group(name, self._folders)

    def remove(self) -> None:
        """Remove the group and whatever boxes' groups are left in it."""
        for row, folder in self._folders:
            os.close(folder)
            _remove_tree(os.path.join(row.path, self.name))
        self._folders = []


class Group:
    """The group of one box, in every hierarchy at once."""

    def __init__(self, name: str, folders: list[tuple[Hierarchy, int]]) -> None:
        self.name, self._folders = name, folders
        self._caps: Caps | None = None

    def make(self, caps: Caps) -> None:
        """Make the group with its limits; nobody is in it yet."""
        for row, parent in self._folders:
            os.mkdir(self.name, 0o755, dir_fd=parent)
            with _opened(self.name, parent) as folder:
                _limit(row, folder, caps)
        self._caps = caps

    def enter(self, caps: Caps) -> None:
        """Move the calling single-threaded process into the group, under these limits."""
        for row, parent in self._folders:
            with _opened(self.name, parent) as folder:
                if caps != self._caps:
                    _limit(row, folder, caps)
                # "0" in `tasks` moves the caller alone, which the kernel does without its global lock; that lock
                # costs up to a millisecond a write.
                _write(folder, "tasks" if row.version == 1 else "cgroup.procs", "0")

    @property
    def late(self) -> int:
        """How many of the last of `tasks` only count or slow what runs."""
        return sum(_late(row) for row, _ in self._folders)

    def tasks(self) -> list[int]:
        """A file of each hierarchy, the caller's to close; a process that writes "0" there moves itself in."""
        files: list[int] = []
        for row, parent in sorted(self._folders, key=lambda it: _late(it[0])):
            name = "tasks" if row.version == 1 else "cgroup.procs"
            files.append(os.open(f"{self.name}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=parent))
        return files

    def usage(self) -> dict[str, float]:
        """cpu_s, peak_mb and oom (0 or 1), as far as they can be read."""
        used = {"cpu_s": 0.0, "peak_mb": 0.0, "oom": 0.0}
        for row, parent in self._folders:
            with contextlib.suppress(OSError, ValueError), _opened(self.name, parent) as folder:
                used |= read_usage(row.version, row.controllers, folder)
        return used

    def thaw(self) -> None:
        """Let everything in the group run: under version 1, what is frozen cannot be killed."""
        for row, parent in self._folders:
            if "freezer" in row.controllers:
                with contextlib.suppress(OSError), _opened(self.name, parent) as folder:
                    _write(folder, "freezer.state", "THAWED")

    def remove(self) -> bool:
        """Remove the group; False where a hierarchy still holds a dying process and it must be tried again."""
        gone = True
        for _, parent in self._folders:
            try:
                os.rmdir(self.name, dir_fd=parent)
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


def _late(row: Hierarchy) -> bool:
    return row.version == 1 and row.controllers <= {"cpu", "cpuacct"}


def _limit(row: Hierarchy, folder: int, caps: Caps) -> None:
    size = str(caps.memory_mb << 20)
    quota = max(1000, int(caps.cpus * _PERIOD_US))
    settings: list[tuple[str, str, str]]
    if row.version == 1:
        settings = [
            ("memory", "memory.limit_in_bytes", size),
            ("memory", "memory.memsw.limit_in_bytes", size),
            ("pids", "pids.max", str(caps.pids)),
            ("cpu", "cpu.cfs_period_us", str(_PERIOD_US)),
            ("cpu", "cpu.cfs_quota_us", str(quota)),
        ]
    else:
        settings = [
            ("memory", "memory.max", size),
            ("memory", "memory.swap.max", "0"),
            ("memory", "memory.oom.group", "1"),
            ("pids", "pids.max", str(caps.pids)),
            ("cpu", "cpu.max", f"{quota} {_PERIOD_US}"),
        ]
    for controller, name, value in settings:
        if controller in row.controllers:
            try:
                _write(folder, name, value)
            except FileNotFoundError:
                # Swap accounting is compiled out on some kernels; every other file is always there.
                if "sw" not in name:
                    raise


def read_usage(version: int, controllers: frozenset[str], folder: int) -> dict[str, float]:
    """Usage of one group in one hierarchy."""
    used: dict[str, float] = {}
    if version == 1:
        if "memory" in controllers:
            used["peak_mb"] = float(int(_read(folder, "memory.max_usage_in_bytes")) >> 20)
            used["oom"] = float(_keyed(_read(folder, "memory.oom_control"), "oom_kill") > 0)
        if "cpuacct" in controllers:
            used["cpu_s"] = int(_read(folder, "cpuacct.usage")) / 1e9
        return used
    if "memory" in controllers:
        used["oom"] = float(_keyed(_read(folder, "memory.events"), "oom_kill") > 0)
        with contextlib.suppress(FileNotFoundError):
            used["peak_mb"] = float(int(_read(folder, "memory.peak")) >> 20)
    used["cpu_s"] = _keyed(_read(folder, "cpu.stat"), "usage_usec") / 1e6
    return used


def _keyed(text: str, key: str) -> int:
    rows = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
    return int(rows.get(key, "0"))


def _plus(controllers: frozenset[str]) -> str:
    return " ".join(f"+{name}" for name in sorted(controllers))


def _delegate(row: Hierarchy) -> None:
    """Hand the controllers on to children: version 2 wants no process in a group that does, so we move to a leaf."""
    folder = os.open(row.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        missing = row.controllers - {"cpuacct"} - set(_read(folder, "cgroup.subtree_control").split())
        if missing:
            _write(folder, "cgroup.subtree_control", _plus(frozenset(missing)))
    finally:
        os.close(folder)


def start_time(pid: int) -> int:
    """Clock ticks after boot at which a living process started; 0 where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0


def sweep(hierarchies: list[Hierarchy]) -> int:
    """Remove the groups of supervisors that are dead; how many."""
    count = 0
    for row in hierarchies:
        with contextlib.suppress(OSError):
            for name in os.listdir(row.path):
                parts = name.split(".")
                ours = name.startswith(_PREFIX) and len(parts) == 3 and parts[1].isdigit()
                if ours and str(start_time(int(parts[1]))) != parts[2]:
                    _remove_tree(os.path.join(row.path, name))
                    count += 1
    return count


def _remove_tree(path: str, patience_s: float = 2.0) -> None:
    """Kill what is in a group and its children and remove them; gives up after the patience."""
    deadline = time.monotonic() + patience_s
    while os.path.isdir(path):
        for folder, _, _ in os.walk(path, topdown=False):
            _kill_members(folder)
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if time.monotonic() > deadline:
            return
        if os.path.isdir(path):
            time.sleep(0.005)


def _kill_members(folder: str) -> None:
    with contextlib.suppress(OSError), _opened(folder) as opened:
        # There in the freezer's hierarchy alone.
        _write(opened, "freezer.state", "THAWED")
    with contextlib.suppress(OSError), open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as file:
        for line in file:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(line), 9)


def describe(hierarchies: list[Hierarchy]) -> Mapping[str, int]:
    """Version by controller, for a report."""
    return {name: row.version for row in hierarchies for name in sorted(row.controllers)}


def usage_of(parents: Mapping[str, str], box: str) -> dict[str, float]:
    """Usage of a box by the paths of its parent's groups; zeros for what cannot be read."""
    used = {"cpu_s": 0.0, "peak_mb": 0.0, "oom": 0.0}
    for controller in ("memory", "cpuacct", "cpu"):
        path = os.path.join(parents.get(controller, "/nowhere"), box)
        with contextlib.suppress(OSError, ValueError), _opened(path) as folder:
            version = 2 if os.path.exists(os.path.join(path, "cgroup.controllers")) else 1
            used |= read_usage(version, frozenset({controller}), folder)
    return used
