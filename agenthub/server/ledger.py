"""What tells, after a kill, whether an episode's sandboxes are in the state that the log says: a count per episode.

Before anything is done to the sandboxes of an episode the hub writes here how many things it will then have done; each
of them adds one entry to the log. After a kill they are in the logged state exactly where this count is that of the
entries: never by the word of what ran in them. The file is mapped memory, which outlives a killed process; a machine
that goes down takes the sandboxes with it anyway.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Ledger", "Mark"]

_NAME_BYTES = 56
_ROW_BYTES = 64
_MAGIC = b"agenthub begun 1".ljust(_ROW_BYTES, b"\0")
_FIRST_ROWS = 1024
_SPOILT = 1 << 40


class Mark:
    """The count of one episode."""

    def __init__(self, ledger: Ledger, row: int, done: int) -> None:
        self._ledger, self._row, self._done = ledger, row, done

    def begin(self) -> None:
        """Something is about to be done to the sandboxes."""
        self._ledger.write(self._row, self._done + 1)

    def logged(self) -> None:
        """It was done, and is in the log."""
        self._done += 1

    def undone(self) -> None:
        """It was not done after all, and nothing has changed."""
        self._ledger.write(self._row, self._done)

    def spoil(self) -> None:
        """It was done, at least in part, and will never be in the log."""
        self._done += _SPOILT
        self._ledger.write(self._row, self._done)

    def release(self) -> None:
        """The episode has ended. Safe to call again; no other call may follow."""
        row, self._row = self._row, -1
        if row >= 0:
            self._ledger.free(row)


class Ledger:
    """The counts of one hub. Without a path they are kept in this process alone."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file = -1
        self._free: list[int] = []
        self._rows = 0
        self._memory: mmap.mmap | None = None
        self._counts: memoryview[int] = memoryview(b"").cast("Q")

    def open(self) -> Mapping[str, int]:
        """Begin anew; the counts that the last hub left, by episode. Raises OSError."""
        left = _left(self._path) if self._path is not None else {}
        if self._path is not None:
            draft = self._path.with_name(f"{self._path.name}.new")
            self._file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._grow()
            os.replace(draft, self._path)
        else:
            self._grow()
        return left

    def claim(self, episode: str, done: int = 0) -> Mark:
        """A mark for an episode of which so many things are in the log. Raises OSError."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        assert self._memory is not None  # it is grown
        self.write(row, done)
        name = episode.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        self._memory[row * _ROW_BYTES : row * _ROW_BYTES + _NAME_BYTES] = name
        return Mark(self, row, done)

    def write(self, row: int, count: int) -> None:
        """Set a row's count; once this returns it is there after a kill."""
        if row >= 0:
            self._counts[(row + 1) * (_ROW_BYTES // 8) - 1] = count

    def free(self, row: int) -> None:
        """Let another episode have a row."""
        assert self._memory is not None  # a row was claimed
        self._memory[row * _ROW_BYTES : (row + 1) * _ROW_BYTES] = bytes(_ROW_BYTES)
        self._free.append(row)

    def close(self) -> None:
        """Let go of the file. Safe to call again."""
        if self._memory is not None:
            self._counts.release()
            self._memory.close()
            self._memory = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _grow(self) -> None:
        """Twice the rows; the first row is the file's head."""
        rows = max(_FIRST_ROWS, 2 * self._rows)
        if self._file >= 0:
            # Not by ftruncate alone: a page that a full disk cannot give would end the process when it is written to.
            os.posix_fallocate(self._file, 0, rows * _ROW_BYTES)
        made = mmap.mmap(self._file, rows * _ROW_BYTES)
        if self._memory is not None:
            if self._file < 0:
                made[: len(self._memory)] = self._memory[:]
            self._counts.release()
            self._memory.close()
        made[:_ROW_BYTES] = _MAGIC
        self._memory, self._counts = made, memoryview(made).cast("Q")
        self._free += range(rows - 1, max(0, self._rows - 1), -1)
        self._rows = rows


def _left(path: Path) -> dict[str, int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    if data[:_ROW_BYTES] != _MAGIC:
        return {}
    found: dict[str, int] = {}
    for at in range(_ROW_BYTES, len(data) - _ROW_BYTES + 1, _ROW_BYTES):
        name = data[at : at + _NAME_BYTES].rstrip(b"\0")
        if name:
            found[name.decode("utf-8", "replace")] = int.from_bytes(data[at + _NAME_BYTES : at + _ROW_BYTES], "little")
    return found
