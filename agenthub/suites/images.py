"""Images that a suite builds from Dockerfiles of its own: their names, which change with what is in them.

Nothing is built here: `agenthub images build SUITE` does that, `serve` never.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from agenthub.errors import ConfigError
from agenthub.suites.schema import BuildIn
from agenthub.suites.task import ImageBuild

__all__ = ["image_build"]

_MOST_FILES = 20_000
_MOST_BYTES = 512 << 20


def image_build(build: BuildIn, *, suite: str, folder: Path, place: str) -> ImageBuild:
    """The image of `sandbox.build` in a suite whose file is in `folder`.

    Raises:
        ConfigError: the context or the Dockerfile is not there, cannot be read, or is too large.
    """
    context = (folder / build.context).resolve()
    dockerfile = (context / build.dockerfile).resolve()
    if not context.is_dir():
        raise ConfigError(place, f"sandbox.build.context {str(context)!r} is no folder")
    if not dockerfile.is_file():
        raise ConfigError(place, f"sandbox.build.dockerfile {str(dockerfile)!r} is no file")
    try:
        digest = hashlib.sha256(dockerfile.read_bytes())
        for row in _rows(context, place):
            digest.update(row)
    except OSError as error:
        raise ConfigError(place, f"sandbox.build: {error}") from None
    # An engine's names are lower case, and have no two separators in a row.
    name = re.sub(r"[^a-z0-9]+", "-", suite.lower()).strip("-")
    image = f"agenthub/build-{name}:{digest.hexdigest()[:16]}"
    return ImageBuild(image=image, context=context, dockerfile=dockerfile, timeout_s=build.timeout)


def _rows(context: Path, place: str) -> Iterator[bytes]:
    """Everything of the context in a fixed order: path, kind and mode, content."""
    files = size = 0
    for folder, folders, names in os.walk(context):
        folders.sort()
        for name in sorted([*names, *folders]):
            path = Path(folder, name)
            facts = path.lstat()
            kind = stat.S_IFMT(facts.st_mode)
            yield f"{path.relative_to(context)}\0{kind:o}\0{facts.st_mode & 0o777:o}\0".encode(
                "utf-8", "surrogateescape"
            )
            if kind == stat.S_IFLNK:
                yield os.readlink(path).encode("utf-8", "surrogateescape")
            elif kind == stat.S_IFREG:
                files, size = files + 1, size + facts.st_size
                if files > _MOST_FILES or size > _MOST_BYTES:
                    most = f"{_MOST_FILES} files or {_MOST_BYTES >> 20} MiB"
                    raise ConfigError(place, f"sandbox.build.context {str(context)!r} has more than {most}")
                yield hashlib.sha256(path.read_bytes()).digest()
