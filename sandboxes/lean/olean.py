"""Reads compiled Lean declarations (.olean parts) as data that may be forged.

Nothing is loaded into Lean and nothing here trusts an offset, a count, a tag or a cached hash. Every node is interned
on its tag and children, so equality is one comparison, sharing is kept, and binder names and metadata vanish.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

__all__ = ["BadOlean", "Name", "Region", "Table"]

Name = tuple[Any, ...]
"""Components from the root; text or a number each."""
_MAIN: Name = ("_private", "Main", 0)
"""What Lean puts before the private names of a file that is called Main."""
_HEADER = 0x50
_FORMAT = 2
_MOST_BYTES = 256 << 20
_MOST_ITEMS = 4_000_000
_MOST_NAME = 1000
_CTOR, _ARRAY, _STRING, _MPZ = 244, 246, 249, 250


class BadOlean(Exception):
    """The file is no compiled Lean file, or is none that can be read safely."""


class Table:
    """Interned nodes, shared by the files that are compared."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Any, ...]] = []
        self._ids: dict[tuple[Any, ...], int] = {}

    def intern(self, node: tuple[Any, ...]) -> int:
        """The node's number; equal nodes have one."""
        found = self._ids.get(node)
        if found is None:
            found = self._ids[node] = len(self.nodes)
            self.nodes.append(node)
        return found


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


class Region:
    """The parts of one module, read together. Every method raises BadOlean where the data does not fit."""

    def __init__(
        self, parts: Sequence[bytes], table: Table, *, pointer: int, versions: frozenset[str], inside: Name = ()
    ) -> None:
        """`inside`: a namespace that is taken off names, behind what is put before the private names of `Main`."""
        if not 1 <= len(parts) <= 3:
            raise BadOlean("a module has one to three parts")
        self.table, self._pointer = table, pointer
        self._parts = [_Part(data, pointer) for data in parts]
        for part in self._parts:
            if part.version not in versions:
                raise BadOlean(f"version {part.version!r} was not tested")
        ordered = sorted(self._parts, key=lambda part: part.base)
        if any(low.end > high.base for low, high in pairwise(ordered)):
            raise BadOlean("overlapping parts")
        self._word = struct.Struct("<I" if pointer == 4 else "<Q")
        self._letter = "I" if pointer == 4 else "Q"
        self._inside = inside
        self._names: dict[int, Name] = {}
        self._levels: dict[int, int] = {}
        self._exprs: dict[int, int] = {}
        self._strings: dict[int, str] = {}

    @property
    def root(self) -> int:
        """Address of the module data, of the last part: it has everything."""
        return int(self._parts[-1].root)

    # Objects

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

    # Names, levels, expressions

    def name(self, address: int) -> Name:
        """A name, as the file's author wrote it."""
        name = self._name(address)
        for prefix in (_MAIN, self._inside):
            if prefix and name[: len(prefix)] == prefix and len(name) > len(prefix):
                name = name[len(prefix) :]
        return name

    def _name(self, address: int) -> Name:
        chain: list[tuple[int, int, int]] = []
        at = address
        while at != 1 and at not in self._names:
            tag, (prefix, last) = self.fields(at, 2)
            if tag not in (1, 2) or len(chain) > _MOST_NAME:
                raise BadOlean("a name that is none")
            chain.append((at, tag, last))
            at = prefix
        found: Name = () if at == 1 else self._names[at]
        for at, tag, last in reversed(chain):
            found = (*found, self.string(last) if tag == 1 else self.nat(last))
            if len(found) > _MOST_NAME:
                raise BadOlean("a name without end")
            self._names[at] = found
        return found

    def names(self, address: int) -> tuple[Name, ...]:
        """A list of names."""
        return tuple(self.name(item) for item in self.listed(address))

    def level(self, address: int) -> int:
        """A universe level, interned."""
        return self._walk(address, self._levels, self._level_children, self._level_node)

    def _level_children(self, address: int) -> tuple[int, ...]:
        if address & 1:
            return ()
        tag, fields = self.fields(address)
        if tag in (1, 2, 3):
            if len(fields) != (1 if tag == 1 else 2):
                raise BadOlean("a level with the wrong number of parts")
            return fields
        return ()

    def _level_node(self, address: int) -> tuple[Any, ...]:
        if address & 1:
            if address != 1:
                raise BadOlean("a level that is none")
            return ("zero",)
        tag, fields = self.fields(address)
        if tag == 0:
            return ("zero",)
        if tag == 4 and len(fields) == 1:
            return ("param", self.name(fields[0]))
        if tag in (1, 2, 3):
            return (("succ", "max", "imax")[tag - 1], *(self._levels[child] for child in fields))
        raise BadOlean("a level with a free variable")

    def expr(self, address: int) -> int:
        """An expression, interned."""
        return self._walk(address, self._exprs, self._expr_children, self._expr_node)

    def _expr_children(self, address: int) -> tuple[int, ...]:
        tag, fields = self.fields(address)
        wanted = {5: (2, 0, 2), 6: (3, 1, 3), 7: (3, 1, 3), 8: (4, 1, 4), 10: (2, 1, 2), 11: (3, 2, 3)}.get(tag)
        if wanted is None:
            return ()
        if len(fields) != wanted[0]:
            raise BadOlean("an expression with the wrong number of parts")
        return fields[wanted[1] : wanted[2]]

    def _expr_node(self, address: int) -> tuple[Any, ...] | int:
        tag, fields = self.fields(address)
        known = self._exprs
        if tag == 10:
            return known[fields[1]]
        if tag in (5, 6, 7, 8):
            kind = {5: "app", 6: "lam", 7: "pi", 8: "let"}[tag]
            return (kind, *(known[child] for child in self._expr_children(address)))
        if tag == 11:
            return ("proj", self.name(fields[0]), self.nat(fields[1]), known[fields[2]])
        if tag == 0 and len(fields) == 1:
            return ("var", self.nat(fields[0]))
        if tag == 3 and len(fields) == 1:
            return ("sort", self.level(fields[0]))
        if tag == 4 and len(fields) == 2:
            return ("const", self.name(fields[0]), tuple(self.level(one) for one in self.listed(fields[1])))
        if tag == 9 and len(fields) == 1:
            literal, (value,) = self.fields(fields[0], 1)
            if literal > 1:
                raise BadOlean("a literal that is none")
            return ("nat", self.nat(value)) if literal == 0 else ("text", self.string(value))
        raise BadOlean("an expression with a free variable")

    def _walk(self, address: int, known: dict[int, int], children: Any, node: Any) -> int:
        """Number of a node, its children first, without recursion."""
        found = known.get(address)
        if found is not None:
            return found
        stack, opened = [address], set()
        while stack:
            at = stack[-1]
            if at in known:
                stack.pop()
                continue
            missing = [child for child in children(at) if child not in known]
            if missing:
                if at in opened:
                    raise BadOlean("a term that contains itself")
                opened.add(at)
                stack += missing
                continue
            made = node(at)
            known[at] = made if isinstance(made, int) else self.table.intern(made)
            stack.pop()
        return known[address]
