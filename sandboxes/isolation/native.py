"""The jail's C parts: built once with the machine's compiler, kept in the user's cache folder by their hash.

Without a compiler there is no fork of a live box, and a cold start takes longer; everything else is as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Native", "NotBuilt", "built", "compiler", "find"]

_SOURCES = Path(__file__).resolve().parent / "csrc"
_PARTS = {
    "twin.so": ("twin.c", ("-shared", "-fPIC")),
    "boxinit": ("boxinit.c", ("-static",)),
}
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O2", "-Wall")
_BUILD_S = 60.0


class NotBuilt(Exception):
    """There are no C parts here, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """The files of the built parts."""

    library: str
    """Shared library that a mold calls."""
    program: str
    """Static program that is a box's process 1."""


def find() -> Native | None:
    """The parts, where they have been built before; builds nothing."""
    folder = _folder()
    if not all(_ours(folder / name) for name in _PARTS):
        return None
    return Native(library=str(folder / "twin.so"), program=str(folder / "boxinit"))


def compiler() -> str | None:
    """The machine's C compiler; None where there is none."""
    return next((path for name in _COMPILERS if (path := shutil.which(name))), None)


def built() -> Native:
    """The parts, built now where they are not there yet. Blocks for a second or two then.

    Raises:
        NotBuilt: there is no compiler, or it failed.
    """
    there = find()
    if there is not None:
        return there
    found = compiler()
    if found is None:
        raise NotBuilt(f"no C compiler (looked for {', '.join(_COMPILERS)})")
    folder = _folder()
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise NotBuilt(f"the cache folder cannot be written: {error}") from error
    try:
        for name, (source, flags) in _PARTS.items():
            _compile([found, *_FLAGS, *flags, "-o", str(made / name), str(_SOURCES / source)])
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    except OSError as error:
        if find() is None:  # another process may have built them meanwhile
            raise NotBuilt(f"the C parts could not be kept: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    there = find()
    if there is None:
        raise NotBuilt(f"{folder} belongs to somebody else, or others may write to it")
    return there


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"the C compiler did not run: {error}") from error
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise NotBuilt(f"the C compiler failed: {said.strip()}")


def _folder() -> Path:
    """Where the parts of these very sources are kept."""
    digest = hashlib.sha256(repr(_FLAGS).encode())
    for source, flags in _PARTS.values():
        digest.update(repr(flags).encode() + (_SOURCES / source).read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "agenthub" / f"jail-{digest.hexdigest()[:16]}"


def _ours(path: Path) -> bool:
    """True for a file that nobody but us (or root) can have written."""
    try:
        rows = (path.stat(), path.parent.stat())
    except OSError:
        return False
    return all(row.st_uid in (os.geteuid(), 0) and not row.st_mode & 0o022 for row in rows)
