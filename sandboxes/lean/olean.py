"""Names, levels and expressions of a compiled Lean file, as data that may be forged.

Nothing is loaded into Lean. Every node is interned on its tag and children, so equality is one comparison, sharing is
kept, and binder names and metadata vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agenthub.sandboxes.lean.objects import BadOlean, Objects

__all__ = ["BadOlean", "Name", "Region", "Table"]

Name = tuple[Any, ...]
"""Components from the root; text or a number each."""
_MAIN: Name = ("_private", "Main", 0)
"""What Lean puts before the private names of a file that is called Main."""
_MOST_NAME = 1000


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


class Region(Objects):
    """What the objects of one module mean. Every method raises BadOlean where the data does not fit."""

    def __init__(
        self, parts: Sequence[bytes], table: Table, *, pointer: int, versions: frozenset[str], inside: Name = ()
    ) -> None:
        """`inside`: a namespace that is taken off names, behind what is put before the private names of `Main`."""
        super().__init__(parts, pointer=pointer, versions=versions)
        self.table, self._inside = table, inside
        self._names: dict[int, Name] = {}
        self._levels: dict[int, int] = {}
        self._exprs: dict[int, int] = {}

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
