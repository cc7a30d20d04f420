"""A folder as data: read from a tar file that nobody vouches for, compared with another, written as a tar file again.

Only folders, regular files and links are kept. A tar file may name anything; a name that leaves the folder, or lies
below something that is no folder, is refused.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agenthub.errors import UserError
from agenthub.sandbox import FileChange

__all__ = ["Entry", "Tree", "applied", "changes", "pack", "unpack", "with_files"]

_MODES = 0o777


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in the folder."""

    data: bytes | None = None
    """Content of a regular file; None for a folder or a link."""
    link: str | None = None
    """Where a symbolic link points; None for everything else."""
    mode: int = 0o644

    @property
    def folder(self) -> bool:
        """True for a folder."""
        return self.data is None and self.link is None


Tree = Mapping[str, Entry]
"""Entries by their path relative to the folder; folders come before what is in them."""


def unpack(archive: bytes, *, strip: int = 0, max_bytes: int) -> dict[str, Entry]:
    """The folder that a tar file holds.

    Args:
        strip: how many leading names each path loses.
        max_bytes: most bytes of all files together.

    Raises:
        UserError: it is no tar file, it is too large, or it names what is outside the folder.
    """
    tree: dict[str, Entry] = {}
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as file:
            for member in file:
                path = _path(member.name, strip)
                if not path:
                    continue
                total += member.size
                if total > max_bytes:
                    raise UserError(f"the files have more than {max_bytes >> 20} MiB")
                entry = _entry(file, member, tree, strip)
                if entry is not None:
                    tree[path] = entry
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"the files came in no readable form: {error}") from error
    return dict(sorted(tree.items()))


def _path(name: str, strip: int) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")][strip:]
    if ".." in parts or "\0" in name:
        raise UserError(f"a file is named {name!r}, which is outside the folder")
    return "/".join(parts)


def _entry(file: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree, strip: int) -> Entry | None:
    mode = member.mode & _MODES
    if member.isdir():
        return Entry(mode=mode)
    if member.issym():
        return Entry(link=member.linkname, mode=mode)
    if member.islnk():
        # Another name of a file that came before; it becomes a file of its own.
        return tree.get(_path(member.linkname, strip))
    content = file.extractfile(member) if member.isreg() else None
    return Entry(data=content.read(), mode=mode) if content is not None else None


def changes(before: Tree, after: Tree) -> tuple[FileChange, ...]:
    """What made `after` of `before`, removed things first; folders count only where they come or go."""
    gone = [path for path in before if path not in after]
    emptied = tuple(f"{path}/" for path in gone if before[path].folder)
    made: list[FileChange] = [FileChange(path=path, removed=True) for path in sorted(gone, reverse=True)]
    for path, entry in after.items():
        old = before.get(path)
        same_folder = old is not None and old.folder and entry.folder
        # An archive need not name the folders that its files are in; what lies below a removed one is made again.
        if (old != entry and not same_folder) or path.startswith(emptied):
            made.append(FileChange(path=path, data=entry.data, link=entry.link, mode=entry.mode))
    return tuple(made)


def applied(tree: Tree, made: Iterable[FileChange]) -> dict[str, Entry]:
    """The folder after the changes. What would lie below a file or a link is left out."""
    result = dict(tree)
    for change in made:
        if change.removed or change.path in result:
            below = change.path + "/"
            replaced = result.pop(change.path, None)
            if replaced is not None and replaced.folder and (change.removed or not change.folder):
                for path in [path for path in result if path.startswith(below)]:
                    del result[path]
        if not change.removed:
            result[change.path] = Entry(data=change.data, link=change.link, mode=change.mode)
    return {path: entry for path, entry in sorted(result.items()) if _in_folders(path, result)}


def _in_folders(path: str, tree: Tree) -> bool:
    parts = path.split("/")
    above = ("/".join(parts[:count]) for count in range(1, len(parts)))
    return all(tree[name].folder for name in above if name in tree)


def pack(tree: Tree) -> bytes:
    """The folder as a tar file, equal bytes for equal folders."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        for path, entry in sorted(tree.items()):
            member = tarfile.TarInfo(path)
            member.mode = entry.mode
            if entry.link is not None:
                member.type, member.linkname = tarfile.SYMTYPE, entry.link
            elif entry.data is None:
                member.type, member.mode = tarfile.DIRTYPE, entry.mode | 0o700
            else:
                member.size = len(entry.data)
            file.addfile(member, io.BytesIO(entry.data or b""))
    return out.getvalue()


def with_files(tree: Tree, files: Mapping[str, bytes]) -> dict[str, Entry]:
    """The folder with these files in it, whatever stood in their way; a file that is there keeps its mode."""
    result = dict(tree)
    for path, data in files.items():
        parts = path.split("/")
        for count in range(1, len(parts)):
            above = "/".join(parts[:count])
            if above in result and not result[above].folder:
                result[above] = Entry(mode=0o755)
        old = result.get(path)
        mode = old.mode if old is not None and old.data is not None else 0o644
        result = applied(result, [FileChange(path=path, data=data, mode=mode)])
    return result
