"""Files of a box's workspace, opened from the hub through a descriptor of its root folder.

The box's processes own the folder and may swap anything in it at any moment. Every step is therefore relative to a
descriptor and resolved by the kernel beneath it, without links, and only regular files are opened, without blocking.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from agenthub.errors import UserError
from agenthub.sandboxes.isolation import syscalls as sys_

__all__ = ["list_files", "read_file", "write_file"]

_RESOLVE = sys_.RESOLVE_BENEATH | sys_.RESOLVE_NO_SYMLINKS | sys_.RESOLVE_NO_MAGICLINKS | sys_.RESOLVE_NO_XDEV
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ELOOP: "a link is in the way",
    errno.EXDEV: "it leaves the workspace",
    errno.ENOTDIR: "a folder on the way is a file",
    errno.EISDIR: "it is a folder",
    errno.ENOSPC: "the workspace is full",
    errno.EFBIG: "it is too large for the workspace",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENXIO: "it is no regular file",
}


def read_file(folder: int, path: str, *, max_bytes: int) -> bytes:
    """The bytes of a regular file. Raises UserError as isolation.Box says."""
    try:
        with _opened(folder, path, os.O_RDONLY | _FLAGS) as descriptor:
            size = _regular(descriptor, path)
            if size > max_bytes:
                raise UserError(f"file {path!r} has {size} bytes; at most {max_bytes} can be read")
            return _read(descriptor, path, max_bytes)
    except OSError as error:
        raise _refusal(path, error) from error


def write_file(folder: int, path: str, data: bytes, *, owner: int | None) -> None:
    """Write a regular file and the folders on its way; `owner` is the box's user where that is not ours."""
    parts = _parts(path)
    try:
        for depth in range(1, len(parts)):
            _make_folder(folder, parts[:depth], owner)
        flags = os.O_WRONLY | os.O_CREAT | _FLAGS
        with _opened(folder, path, flags, mode=0o644) as descriptor:
            _regular(descriptor, path)
            os.ftruncate(descriptor, 0)
            if owner is not None:
                os.fchown(descriptor, owner, owner)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _refusal(path, error) from error


def list_files(folder: int, *, most: int) -> list[str]:
    """Relative paths of the regular files, sorted, at most `most`; what vanishes on the way is left out."""
    found: list[str] = []
    waiting = [""]
    seen = 0
    while waiting and len(found) < most and seen < 10 * most:
        here = waiting.pop()
        flags = os.O_RDONLY | os.O_DIRECTORY
        with contextlib.suppress(OSError), _opened(folder, here or ".", flags) as opened, os.scandir(opened) as entries:
            for entry in entries:
                seen += 1
                path = f"{here}/{entry.name}" if here else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_file(follow_symlinks=False):
                    found.append(path)
    return sorted(found)[:most]


class _opened(contextlib.AbstractContextManager[int]):
    def __init__(self, folder: int, path: str, flags: int, mode: int = 0) -> None:
        if path != ".":
            _parts(path)
        self._descriptor = sys_.openat2(folder, path, flags, resolve=_RESOLVE, mode=mode)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if not path or "\0" in path or path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise UserError(f"path {path!r} is not a relative path inside the workspace")
    return parts


def _regular(descriptor: int, path: str) -> int:
    """Size of what was opened. Raises UserError where it is no regular file."""
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise UserError(f"file {path!r}: it is no regular file")
    return facts.st_size


def _read(descriptor: int, path: str, most: int) -> bytes:
    """Read to the end, which may have moved since the size was asked for."""
    chunks: list[bytes] = []
    total = 0
    while chunk := os.read(descriptor, min(1 << 20, most + 1 - total)):
        chunks.append(chunk)
        total += len(chunk)
        if total > most:
            raise UserError(f"file {path!r} grew over {most} bytes while it was read")
    return b"".join(chunks)


def _make_folder(folder: int, parts: list[str], owner: int | None) -> None:
    path = "/".join(parts)
    above = "/".join(parts[:-1]) or "."
    with _opened(folder, above, os.O_RDONLY | os.O_DIRECTORY) as descriptor, contextlib.suppress(FileExistsError):
        os.mkdir(parts[-1], 0o755, dir_fd=descriptor)
        with _opened(folder, path, os.O_RDONLY | os.O_DIRECTORY) as made:
            if owner is not None:
                os.fchown(made, owner, owner)


def _refusal(path: str, error: OSError) -> UserError:
    reason = _REASONS.get(error.errno or 0, os.strerror(error.errno or 0))
    return UserError(f"file {path!r}: {reason}")
