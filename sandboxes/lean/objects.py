"""Objects of a compiled Lean file (.olean parts), constructors, arrays, texts, numbers: data that may be forged.

Nothing here trusts an offset, a count, a tag or a cached hash.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["BadOlean", "Objects"]

_HEADER = 0x50
_FORMAT = 2
_MOST_BYTES = 256 << 20
_MOST_ITEMS = 4_000_000
_CTOR, _ARRAY, _STRING, _MPZ = 244, 246, 249, 250


class BadOlean(Exception):
    """The file is no compiled Lean file, or is none that can be read safely."""


class _Part:
    def __init__(self, data: bytes, pointer: int) -> None:
        if len(data) < _HEADER + 2 * pointer or data[:5] != b"olean":
            raise BadOlean("no compiled file")
        if len(data) > _MOST_BYTES:
            raise BadOlean("too large")
        if data[5] != _FORMAT:
            raise BadOlean(f"format {data[5]} was not tested")
        self.data, self.gmp = data, bool(data[6] & 1)
        self.version = data[7:40].rstrip(b"\0").decode("ascii", "replace")
        self.base, self.root = struct.unpack_from("<II" if pointer == 4 else "<QQ", data, _HEADER)
        self.start, self.end = self.base + _HEADER, self.base + len(data)


class Objects:
    """The parts of one module, read together. Every method raises BadOlean where the data does not fit."""

    def __init__(self, parts: Sequence[bytes], *, pointer: int, versions: frozenset[str]) -> None:
        if not 1 <= len(parts) <= 3:
            raise BadOlean("a module has one to three parts")
        self._pointer = pointer
        self._parts = [_Part(data, pointer) for data in parts]
        for part in self._parts:
            if part.version not in versions:
                raise BadOlean(f"version {part.version!r} was not tested")
        ordered = sorted(self._parts, key=lambda part: part.base)
        if any(low.end > high.base for low, high in pairwise(ordered)):
            raise BadOlean("overlapping parts")
        self._word = struct.Struct("<I" if pointer == 4 else "<Q")
        self._letter = "I" if pointer == 4 else "Q"
        self._strings: dict[int, str] = {}

    @property
    def root(self) -> int:
        """Address of the module data, of the last part: it has everything."""
        return int(self._parts[-1].root)

    def _at(self, address: int) -> tuple[bytes, int]:
        if address & (self._pointer - 1):
            raise BadOlean("a pointer is not aligned")
        for part in self._parts:
            if part.start + 2 * self._pointer <= address <= part.end - 8:
                return part.data, address - part.base
        raise BadOlean("a pointer leads outside")

    def _words(self, data: bytes, offset: int, count: int) -> tuple[int, ...]:
        if count > _MOST_ITEMS or offset + count * self._pointer > len(data):
            raise BadOlean("an object is longer than its file")
        return struct.unpack_from(f"<{count}{self._letter}", data, offset)

    def fields(self, address: int, count: int | None = None) -> tuple[int, tuple[int, ...]]:
        """Tag and pointers of a constructor."""
        if address & 1:
            raise BadOlean("a boxed value where an object is expected")
        data, offset = self._at(address)
        number, tag = data[offset + 6], data[offset + 7]
        if tag > _CTOR:
            raise BadOlean(f"tag {tag} is no constructor's")
        if count is not None and number != count:
            raise BadOlean(f"{number} fields; expected {count}")
        return tag, self._words(data, offset + 8, number)

    def exactly(self, address: int, tag: int, count: int) -> tuple[int, ...]:
        """Pointers of a constructor with this tag and this many fields."""
        found, fields = self.fields(address, count)
        if found != tag:
            raise BadOlean(f"tag {found}; expected {tag}")
        return fields

    def byte(self, address: int, index: int) -> int:
        """A one-byte scalar behind a constructor's pointers."""
        data, offset = self._at(address)
        at = offset + 8 + data[offset + 6] * self._pointer + index
        if at >= len(data):
            raise BadOlean("a scalar lies outside")
        return data[at]

    def flag(self, address: int, index: int) -> bool:
        """A scalar that is 0 or 1."""
        value = self.byte(address, index)
        if value > 1:
            raise BadOlean("a truth value is neither 0 nor 1")
        return bool(value)

    def u32(self, address: int) -> int:
        """A four-byte scalar behind a constructor's pointers."""
        return sum(self.byte(address, index) << (8 * index) for index in range(4))

    def array(self, address: int) -> tuple[int, ...]:
        """Items of an array."""
        data, offset = self._object(address, _ARRAY)
        (size,) = self._words(data, offset + 8, 1)
        return self._words(data, offset + 8 + 2 * self._pointer, size)

    def _object(self, address: int, tag: int) -> tuple[bytes, int]:
        if address & 1:
            raise BadOlean("a boxed value where an object is expected")
        data, offset = self._at(address)
        if data[offset + 7] != tag:
            raise BadOlean(f"tag {data[offset + 7]}; expected {tag}")
        return data, offset

    def listed(self, address: int) -> list[int]:
        """Items of a linked list."""
        items: list[int] = []
        while not address & 1:
            head, address = self.exactly(address, 1, 2)
            items.append(head)
            if len(items) > 100_000:
                raise BadOlean("a list without end")
        if address != 1:
            raise BadOlean("a list ends in a number")
        return items

    def string(self, address: int) -> str:
        """A text."""
        found = self._strings.get(address)
        if found is None:
            data, offset = self._object(address, _STRING)
            (size,) = self._words(data, offset + 8, 1)
            at = offset + 8 + 3 * self._pointer
            if size < 1 or at + size > len(data) or data[at + size - 1] != 0:
                raise BadOlean("a text is longer than its file")
            try:
                found = data[at : at + size - 1].decode("utf-8")
            except UnicodeDecodeError as error:
                raise BadOlean("a text is not UTF-8") from error
            self._strings[address] = found
        return found

    def nat(self, address: int) -> int:
        """A natural number; a large one only in its one canonical form."""
        if address & 1:
            return address >> 1
        data, offset = self._object(address, _MPZ)
        count, pointer = self._gmp(data, offset) if self._parts[0].gmp else self._plain(data, offset)
        digits, at = self._digits(pointer, count)
        value = int.from_bytes(digits[at : at + count], "little")
        if value >> (8 * self._pointer - 1) == 0:
            raise BadOlean("a small number in a large one's form")
        return value

    def _gmp(self, data: bytes, offset: int) -> tuple[int, int]:
        """Bytes and address of a number's digits as GMP lays it out."""
        if offset + 16 + self._pointer > len(data):
            raise BadOlean("a number lies outside")
        _, size = struct.unpack_from("<ii", data, offset + 8)
        if size <= 0:
            raise BadOlean("a number is negative")
        return size * self._pointer, self._words(data, offset + 16, 1)[0]

    def _plain(self, data: bytes, offset: int) -> tuple[int, int]:
        """The same as Lean lays it out without GMP."""
        size, pointer = self._words(data, offset + 8 + self._pointer, 2)
        if data[offset + 8]:
            raise BadOlean("a number is negative")
        return size * 4, pointer

    def _digits(self, pointer: int, count: int) -> tuple[bytes, int]:
        for part in self._parts:
            if count <= 1 << 20 and part.start <= pointer and pointer + count <= part.end:
                return part.data, pointer - part.base
        raise BadOlean("a number's digits lie outside")
