"""What a copy of an interpreter has to be given again: the kernel's side of it is new, only its memory came along.

Part of the guest: standard library only. Files and folders are opened again where they were; sockets, pipes and files
without a name cannot be, and their numbers stay taken so that nothing else is mistaken for them.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

__all__ = ["Carried"]

_STANDARD = (0, 1, 2)
_ONCE = os.O_CREAT | os.O_EXCL | os.O_TRUNC
_AT_FIRST = {it: signal.SIG_IGN for it in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)}
"""What a process that was just made does with these; everything else is at its default."""
_KINDS = ("socket:", "pipe:", "anon_inode:", "/memfd:")


@dataclass(frozen=True, slots=True)
class _File:
    number: int
    path: str
    flags: int
    offset: int


class Carried:
    """Open files, working folder, mask of new files and signal handlers, as they are when it is made."""

    def __init__(self, control: int) -> None:
        self._folder = _folder()
        self._mask = os.umask(0o022)
        os.umask(self._mask)
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._signals = [it for it in handlers if handlers[it] != _AT_FIRST.get(it, signal.SIG_DFL)]
        self._files = [row for row in map(_open_file, _numbers(control)) if row is not None]

    def restore(self) -> list[str]:
        """Give this process what the other had; what could not be given again."""
        lost: list[str] = []
        _stir()
        os.umask(self._mask)
        try:
            os.chdir(self._folder)
        except OSError:
            lost.append(f"folder {self._folder}")
        for row in self._files:
            if not _reopen(row):
                lost.append(f"{row.number} ({row.path.partition(':')[0] if row.path.startswith(_KINDS) else row.path})")
                _keep_taken(row.number)
        for number in self._signals:
            try:
                signal.signal(number, signal.getsignal(number))
            except (OSError, TypeError, ValueError):
                lost.append(f"handler of signal {number}")
        return lost


def _stir() -> None:
    """OpenSSL notices a fork by its process number, which is the same in every box: two copies would draw alike."""
    ssl = sys.modules.get("_ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/workspace"


def _numbers(control: int) -> list[int]:
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return []
    return sorted({int(name) for name in names} - {*_STANDARD, control})


def _open_file(number: int) -> _File | None:
    """None for a descriptor that is gone: the one that the list itself was read through."""
    try:
        path = os.readlink(f"/proc/self/fd/{number}")
        with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as file:
            facts = dict(line.split(":", 1) for line in file if ":" in line)
        return _File(number, path, int(facts["flags"], 8), int(facts["pos"]))
    except (OSError, KeyError, ValueError):
        return None


def _reopen(row: _File) -> bool:
    if row.path.startswith(_KINDS) or row.path.endswith(" (deleted)"):
        return False
    try:
        opened = os.open(row.path, row.flags & ~_ONCE | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not row.flags & os.O_NONBLOCK:
            os.set_blocking(opened, True)
        if row.offset:
            os.lseek(opened, row.offset, os.SEEK_SET)
    except OSError:
        os.close(opened)
        return False
    if opened != row.number:
        os.dup2(opened, row.number, inheritable=not row.flags & os.O_CLOEXEC)
        os.close(opened)
    return True


def _keep_taken(number: int) -> None:
    """A descriptor on which every read and write fails, and that no later file gets the number of."""
    opened = os.open("/", os.O_PATH)
    if opened != number:
        os.dup2(opened, number, inheritable=False)
        os.close(opened)
