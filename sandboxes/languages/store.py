"""Roots with languages in them: folders that `agenthub images build` makes and every box of theirs sees read-only.

A root is named by what is installed in it, so that suites share it and a changed list is another root. It holds a
Debian /usr with Python 3 for the resident program; nothing in it runs while it is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agenthub.errors import HostFault, UserError
from agenthub.isolation import Mount

__all__ = ["build", "folder", "image_of", "import_image", "key_of", "mounts_of", "root_of"]

_BASE = ("python3",)
_BUILD_S = 1800.0
_MARK = "agenthub-image.json"


def folder() -> Path:
    """Where roots are kept: `AGENTHUB_IMAGES`, or the user's cache."""
    given = os.environ.get("AGENTHUB_IMAGES")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "agenthub" / "images"


def key_of(install: Sequence[str]) -> str:
    """Name of the root with these packages."""
    return hashlib.sha256(json.dumps(sorted({*_BASE, *install})).encode()).hexdigest()[:16]


def root_of(install: Sequence[str]) -> Path | None:
    """The root with these packages; None where it was not built."""
    root = folder() / key_of(install)
    return root if (root / _MARK).is_file() else None


def mounts_of(root: Path) -> tuple[Mount, ...]:
    """What a box of the jail sees of a root. /bin, /lib and /lib64 are links into /usr there as here."""
    return (Mount(source=str(root / "usr"), target="/usr"),)


def image_of(install: Sequence[str]) -> str:
    """Name of the container image with these packages."""
    return f"agenthub/languages:{key_of(install)}"


def build(install: Sequence[str], *, release: str = "bookworm") -> Path:
    """Make the root with these packages, unless it is there.

    Raises:
        UserError: this machine cannot make it, or a package is not known; says why.
    """
    found = root_of(install)
    if found is not None:
        return found
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise UserError(
            "installing languages needs mmdebstrap (on Debian and its kin: apt-get install mmdebstrap); elsewhere give"
            " the language an `image:` that has it, and run it on isolation docker"
        )
    folder().mkdir(parents=True, exist_ok=True)
    packages = ",".join(sorted({*_BASE, *install}))
    with tempfile.TemporaryDirectory(dir=folder(), prefix="new-") as made:
        root = Path(made) / "root"
        # `extract` unpacks and configures nothing: no program of a package runs.
        arguments = [
            tool,
            "--quiet",
            "--variant=extract",
            "--format=directory",
            f"--include={packages}",
            release,
            str(root),
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=_BUILD_S, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.strip().splitlines() if line.startswith("E:")] or [done.stderr[-500:]]
            raise UserError(f"{', '.join(sorted(install))} cannot be installed: {lines[0]}")
        _merge(root)
        root.chmod(0o755)
        (root / _MARK).write_text(json.dumps({"packages": sorted(install), "release": release}), encoding="utf-8")
        target = folder() / key_of(install)
        try:
            root.rename(target)
        except OSError as error:
            # Somebody else built it meanwhile.
            if root_of(install) is None:
                raise HostFault(f"the image cannot be put at {target}: {error}") from error
    return folder() / key_of(install)


def _merge(root: Path) -> None:
    """Move /bin, /lib and their like into /usr, as an installed Debian has them: the jail shows /usr alone."""
    for path in [*root.glob("lib*"), root / "bin", root / "sbin"]:
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, root / "usr" / path.name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(path)
            path.symlink_to(f"usr/{path.name}")


def import_image(install: Sequence[str]) -> str:
    """Give a root that was built to the container engine. Raises UserError where either is not there."""
    root = root_of(install)
    if root is None:
        raise UserError("the root was not built")
    from agenthub.sandboxes.isolation.container_engine import Engine

    engine = Engine.connect()
    try:
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as packing:
            assert packing.stdout is not None
            repository, _, tag = image_of(install).partition(":")
            engine.api.import_image_from_data(packing.stdout, repository=repository, tag=tag)
    finally:
        engine.close()
    return image_of(install)
