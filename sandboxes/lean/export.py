"""A target's own declarations as plain numbers, for the kernel in a process that never saw the submission.

The form is a stream of decimal numbers: operation, count, that many arguments. Each operation makes the next name,
level or expression, or gives the kernel a declaration. `Replay.lean` reads it.
"""

from __future__ import annotations

from agenthub.sandboxes.lean.module import Decl
from agenthub.sandboxes.lean.olean import BadOlean, Name, Table
from agenthub.sandboxes.lean.structure import children, used_by

__all__ = ["export"]

_LEVEL = {"succ": 3, "max": 4, "imax": 5}
_EXPR = {"app": 13, "lam": 14, "pi": 15, "let": 16}
_MOST_NUMBERS = 20_000_000


class _Writer:
    def __init__(self, table: Table, own: dict[Name, Decl]) -> None:
        self.table, self.own = table, own
        self.out: list[str] = []
        self._count = 0
        self._names: dict[Name, int] = {(): 0}
        self._levels: dict[int, int] = {}
        self._exprs: dict[int, int] = {}

    def op(self, code: int, *arguments: int) -> None:
        self._count += len(arguments) + 2
        if self._count > _MOST_NUMBERS:
            raise BadOlean("too large to be replayed")
        self.out.append(" ".join(map(str, (code, len(arguments), *arguments))))

    def name(self, name: Name) -> int:
        if name not in self._names:
            above, last = self.name(name[:-1]), name[-1]
            if isinstance(last, str):
                self.op(1, above, *map(ord, last))
            else:
                self.op(2, above, last)
            self._names[name] = len(self._names)
        return self._names[name]

    def level(self, number: int) -> int:
        if number not in self._levels:
            node = self.table.nodes[number]
            if node[0] == "param":
                self.op(6, self.name(node[1]))
            elif node[0] == "zero":
                self.op(7)
            else:
                self.op(_LEVEL[node[0]], *(self.level(child) for child in node[1:]))
            self._levels[number] = len(self._levels)
        return self._levels[number]

    def expr(self, number: int) -> int:
        stack = [number]
        while stack:
            at = stack[-1]
            if at in self._exprs:
                stack.pop()
                continue
            node = self.table.nodes[at]
            missing = [child for child in children(node) if child not in self._exprs]
            if missing:
                stack += missing
                continue
            self._node(node)
            self._exprs[at] = len(self._exprs)
            stack.pop()
        return self._exprs[number]

    def _node(self, node: tuple[object, ...]) -> None:
        kind = node[0]
        below = [self._exprs[child] for child in children(node)]
        if kind in _EXPR:
            self.op(_EXPR[str(kind)], *below)
        elif kind == "var":
            self.op(10, node[1])  # type: ignore[arg-type]
        elif kind == "sort":
            self.op(11, self.level(node[1]))  # type: ignore[arg-type]
        elif kind == "const":
            levels = [self.level(one) for one in node[2]]  # type: ignore[attr-defined]
            self.op(12, self.name(node[1]), *levels)  # type: ignore[arg-type]
        elif kind == "nat":
            self.op(17, node[1])  # type: ignore[arg-type]
        elif kind == "text":
            self.op(19, *map(ord, node[1]))  # type: ignore[call-overload]
        else:
            self.op(18, self.name(node[1]), node[2], *below)  # type: ignore[arg-type]

    def decl(self, decl: Decl) -> None:
        if decl.unsafe or decl.kind == "quot":
            raise BadOlean("a declaration that the kernel is not given")
        if decl.kind == "inductive":
            self._family(decl)
            return
        head = [self.name(decl.name), self.expr(decl.type)]
        levels = [self.name(one) for one in decl.levels]
        if decl.kind == "axiom":
            self.op(24, *head, *levels)
            return
        assert decl.value is not None
        value = self.expr(decl.value)
        if decl.kind == "def":
            self.op(21, *head, value, decl.hints, *levels)
        else:
            self.op({"theorem": 20, "opaque": 23}[decl.kind], *head, value, *levels)

    def _family(self, decl: Decl) -> None:
        numbers = [decl.numbers[0], len(decl.levels), *(self.name(one) for one in decl.levels)]
        numbers.append(len(decl.all))
        for name in decl.all:
            member = self.own[name]
            numbers += [self.name(name), self.expr(member.type), len(member.ctors)]
            for ctor in member.ctors:
                numbers += [self.name(ctor), self.expr(self.own[ctor].type)]
        self.op(22, *numbers)


def _owner(own: dict[Name, Decl], name: Name) -> Name:
    """The declaration that brings a name: a family's constructors and recursors come with its first type."""
    decl = own[name]
    if decl.kind == "constructor":
        decl = own.get(decl.of, decl)
    if decl.kind in ("inductive", "recursor", "constructor"):
        first = decl.all[0] if decl.all else name
        if first not in own or own[first].kind != "inductive" or first not in own[first].all:
            raise BadOlean("an inductive family that is none")
        return first
    return name


def _needs(table: Table, own: dict[Name, Decl], name: Name) -> set[Name]:
    decl = own[name]
    if decl.kind != "inductive":
        found = used_by(table, decl)
    else:
        found = set()
        for member in decl.all:
            if member not in own or own[member].kind != "inductive":
                raise BadOlean("an inductive family that is none")
            for ctor in own[member].ctors:
                if ctor not in own or own[ctor].kind != "constructor":
                    raise BadOlean("an inductive family that is none")
                found |= used_by(table, own[ctor])
            found |= used_by(table, own[member])
    return {_owner(own, one) for one in found if one in own} - {name}


def export(table: Table, own: dict[Name, Decl], targets: list[Name]) -> str:
    """The targets and everything own that they rest on, in an order in which the kernel can take them.

    Raises:
        BadOlean: a family that is none, a circle, or too much.
    """
    writer = _Writer(table, own)
    done: set[Name] = set()
    opened: set[Name] = set()
    stack = [_owner(own, target) for target in targets]
    while stack:
        name = stack[-1]
        if name in done:
            stack.pop()
            continue
        missing = _needs(table, own, name) - done
        if missing:
            if name in opened:
                raise BadOlean("declarations that rest on each other")
            opened.add(name)
            stack += sorted(missing, key=str)
            continue
        writer.decl(own[name])
        done.add(name)
        stack.pop()
    return " ".join(writer.out) + " "
