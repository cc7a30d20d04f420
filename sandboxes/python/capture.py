"""Output of a box as the hub keeps and shows it: head and tail of each stream, made harmless to read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

__all__ = ["Capture", "Shown", "harmless"]

_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\uffff"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)


def harmless(text: str) -> str:
    """Text whose control, direction-changing and invisible tag characters are backslash escapes.

    Newline and tab stay. What a terminal, a log or a template would act upon becomes visible instead.
    """
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What of a stream is shown."""

    text: str
    truncated: bool
    sha256: str
    """Hash of everything that was read; empty where all of it is shown."""


_NOTHING = Shown(text="", truncated=False, sha256="")


class Capture:
    """One stream of one turn: keeps `shown_bytes`, half from the start and half from the end, and counts the rest."""

    def __init__(self, shown_bytes: int) -> None:
        self._half = max(1, shown_bytes // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self._hash: hashlib._Hash | None = None
        """Of everything, from the moment when something is dropped."""
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.total += len(data)
        if self._hash is not None:
            self._hash.update(data)
        elif self.total > 2 * self._half:
            self._hash = hashlib.sha256(self._head + self._tail + data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def shown(self) -> Shown:
        """Head, a line that says how much is missing, and tail."""
        if not self.total:
            return _NOTHING
        tail = self._tail[-self._half :]
        cut = self.total - len(self._head) - len(tail)
        if cut <= 0 or self._hash is None:
            return Shown(text=_decoded(bytes(self._head + tail)), truncated=False, sha256="")
        head = _decoded(_whole_end(bytes(self._head)))
        text = f"{head}\n... {cut} bytes cut ...\n{_decoded(_whole_start(bytes(tail)))}"
        return Shown(text=text, truncated=True, sha256=self._hash.hexdigest())


class Kept:
    """One stream of a script that is graded: its first bytes as they are, and whether there were more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.data = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.total += len(data)
        self.data += data[: self._most - len(self.data)]


def _decoded(data: bytes) -> str:
    return harmless(data.decode("utf-8", "backslashreplace"))


def _whole_end(data: bytes) -> bytes:
    """Without a character that the cut went through."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:
            needs = 1 + (data[-back] >= 0xC0) + (data[-back] >= 0xE0) + (data[-back] >= 0xF0)
            return data[:-back] if needs > back else data
    return data


def _whole_start(data: bytes) -> bytes:
    for at in range(min(4, len(data))):
        if data[at] & 0xC0 != 0x80:
            return data[at:]
    return data
