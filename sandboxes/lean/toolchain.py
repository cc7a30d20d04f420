"""Which Lean is on this machine: a command prefix, the folders that it needs, and what it can do.

Looked for in this order: `$AGENTHUB_LEAN` (a command, or a folder with bin/), `lean` on PATH, elan's default, and the
WebAssembly build that `scripts/lean-toolchain` puts into `.cache/lean` beside the project or into the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agenthub.errors import UserError
from agenthub.isolation import Mount

__all__ = ["TESTED", "Toolchain", "find", "missing"]

TESTED = frozenset({"4.28.0-pre", "4.28.0"})
"""Versions whose compiled files the reader was tested on; another one's are refused."""
_VERSION = re.compile(r"version ([0-9A-Za-z.-]+)[,)].*?(?:commit ([0-9a-f]{7,40}))?", re.DOTALL)
_ROOT, _LIBRARIES = "/lean", "/lean-libraries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """One Lean toolchain."""

    command: tuple[str, ...]
    """What is put before the arguments of `lean`, as a box sees it."""
    version: str
    commit: str
    folder: Path
    """Its prefix: bin/ and lib/lean/ are in it."""
    mounts: tuple[Mount, ...]
    """What a box needs to see of the host to run it, read-only."""
    native: bool
    """False: the WebAssembly build, whose pointers have four bytes, whose files are modules, and which cannot run the
    meta-programs of a submission."""

    @property
    def env(self) -> dict[str, str]:
        """Environment of a box that runs it."""
        return {"LD_LIBRARY_PATH": _LIBRARIES, "LEAN_NUM_THREADS": "2", "HOME": "/tmp"}

    @property
    def pointer_bytes(self) -> int:
        """Bytes of a pointer in a compiled file."""
        return 8 if self.native else 4

    @property
    def library(self) -> Path:
        """Where the compiled library is."""
        return self.folder / "lib" / "lean"

    @property
    def capabilities(self) -> tuple[str, ...]:
        """json: messages as JSON; ahead: can be started ahead of its task, and waits with the library imported, as
        `scripts/lean-toolchain` has taught it; leanchecker, meta: only a native one."""
        if not self.native:
            return ("json", "ahead") if any(self.folder.glob("agenthub-lean-[5-9]")) else ("json",)
        return ("json", "leanchecker", "meta") if (self.folder / "bin" / "leanchecker").exists() else ("json", "meta")

    @property
    def identity(self) -> str:
        """Names the toolchain in verdicts and caches."""
        return f"lean-{self.version}-{self.commit[:12] or 'unknown'}-{'native' if self.native else 'wasm32'}"

    def digest(self) -> str:
        """SHA-256 over the names and sizes of its files: changes where any was replaced by another size."""
        rows = sorted(
            f"{path.relative_to(self.folder)} {path.stat().st_size} {path.stat().st_mtime_ns}"
            for path in self.folder.rglob("*")
            if path.is_file()
        )
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


@functools.cache
def find() -> Toolchain:
    """The first toolchain that answers.

    Raises:
        UserError: there is none; says where was looked and how to get one.
    """
    given = os.environ.get("AGENTHUB_LEAN")
    if given:
        found = _given(given)
        if found is None:
            raise UserError(f"$AGENTHUB_LEAN is {given!r}, which is no Lean: it did not tell its version")
        return found
    for command in _natives():
        found = _native(command)
        if found is not None:
            return found
    for folder in _wasm_folders():
        found = _wasm(folder)
        if found is not None:
            return found
    raise UserError(
        "there is no Lean on this machine: not $AGENTHUB_LEAN, not `lean` on PATH, not elan's, not .cache/lean; install"
        " one with elan, or run scripts/lean-toolchain for the WebAssembly build"
    )


def missing() -> str | None:
    """Why there is no Lean here; None where there is one."""
    try:
        find()
    except UserError as error:
        return str(error)
    return None


def _given(given: str) -> Toolchain | None:
    folder = Path(given)
    if folder.is_dir():
        return _wasm(folder) if (folder / "bin" / "lean.js").is_file() else _native((str(folder / "bin" / "lean"),))
    words = tuple(shlex.split(given))
    if words and words[-1].endswith("lean.js"):
        return _wasm(Path(words[-1]).resolve().parent.parent)
    return _native(words) if words else None


def _natives() -> list[tuple[str, ...]]:
    home = Path(os.environ.get("ELAN_HOME") or Path.home() / ".elan")
    named = [shutil.which("lean"), str(home / "bin" / "lean")]
    return [(path,) for path in named if path and Path(path).is_file()]


def _wasm_folders() -> list[Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    project = Path(__file__).resolve().parents[2]
    return [project / ".cache" / "lean", Path(cache) / "agenthub" / "lean"]


def _wasm(folder: Path) -> Toolchain | None:
    node, program = folder / "bin" / "node", folder / "bin" / "lean.js"
    if not node.is_file() or not program.is_file():
        return None
    # It tells its version only after a start of seconds; the header of its first library file has it at once.
    head = _header(folder / "lib" / "lean" / "Init.olean")
    if head is None:
        return None
    root = folder.resolve()
    return Toolchain(
        command=(f"{_ROOT}/bin/node", f"{_ROOT}/bin/lean.js"),
        version=head[0],
        commit=head[1],
        folder=root,
        mounts=(Mount(source=str(root), target=_ROOT), *_libraries(root / "bin" / "node")),
        native=False,
    )


def _native(command: tuple[str, ...]) -> Toolchain | None:
    try:
        told = subprocess.run([*command, "--print-prefix"], capture_output=True, text=True, timeout=60, check=True)
        version = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found, root = _VERSION.search(version.stdout), Path(told.stdout.strip()).resolve()
    if found is None or not (root / "lib" / "lean").is_dir():
        return None
    head = _header(root / "lib" / "lean" / "Init.olean")
    program = root / "bin" / "lean"
    return Toolchain(
        command=(f"{_ROOT}/bin/lean",),
        version=found[1],
        commit=head[1] if head else "",
        folder=root,
        mounts=(Mount(source=str(root), target=_ROOT), *_libraries(program)),
        native=True,
    )


def _header(path: Path) -> tuple[str, str] | None:
    try:
        with path.open("rb") as file:
            head = file.read(0x50)
    except OSError:
        return None
    if head[:5] != b"olean" or len(head) < 0x50:
        return None
    return tuple(part.rstrip(b"\0").decode("ascii", "replace") for part in (head[7:40], head[40:80]))  # type: ignore[return-value]


def _libraries(program: Path) -> tuple[Mount, ...]:
    """The shared libraries that a program takes from the host; the jail need not show their folders."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    found = dict(re.findall(r"^\s*(\S+) => (/\S+)", told.stdout, re.MULTILINE))
    outside = {name: path for name, path in found.items() if not Path(path).is_relative_to(program.parent.parent)}
    rows = sorted((name, os.path.realpath(path)) for name, path in outside.items())
    return tuple(Mount(source=path, target=f"{_LIBRARIES}/{name}") for name, path in rows)
