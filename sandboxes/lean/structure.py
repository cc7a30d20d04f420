"""Compares declarations of two files by structure: what a statement means, whatever its helpers are called.

An own definition counts as the digest of its type and value, a theorem as that of its type (any proof of it will do),
an inductive family by name and by all its parts. Universe parameters are compared by position.
"""

from __future__ import annotations

from typing import Any

from agenthub.sandboxes.lean.module import Decl
from agenthub.sandboxes.lean.olean import BadOlean, Name, Table

__all__ = ["differences", "used_by", "uses"]

_CHILDREN = {"app": (1, 3), "lam": (1, 3), "pi": (1, 3), "let": (1, 4), "proj": (3, 4)}
_FAMILY = frozenset({"inductive", "constructor", "recursor", "axiom", "quot"})
NAT, TEXT = ("Nat",), ("String",)


def children(node: tuple[Any, ...]) -> tuple[int, ...]:
    """Numbers of an expression's own expressions."""
    low, high = _CHILDREN.get(node[0], (0, 0))
    return node[low:high]


def uses(table: Table, expr: int, seen: set[int]) -> set[Name]:
    """Constants below an expression, but for what is below a number in `seen`, which grows."""
    found: set[Name] = set()
    stack = [expr]
    while stack:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        node = table.nodes[at]
        if node[0] in ("const", "proj"):
            found.add(node[1])
        elif node[0] in ("nat", "text"):
            found.add(NAT if node[0] == "nat" else TEXT)
        stack += children(node)
    return found


def used_by(table: Table, decl: Decl, *, proofs: bool = True) -> set[Name]:
    """Every constant that a declaration rests on; without `proofs`, not what is in the proof of a theorem."""
    seen: set[int] = set()
    found = uses(table, decl.type, seen)
    if decl.value is not None and (proofs or decl.kind != "theorem"):
        found |= uses(table, decl.value, seen)
    for ctor, _, right in decl.rules:
        found |= {ctor} | uses(table, right, seen)
    if decl.kind in ("inductive", "recursor"):
        found |= {*decl.all, *decl.ctors}
    return found | ({decl.of} if decl.of else set())


class _Canon:
    """One file's declarations in a form in which equal ones have equal numbers."""

    def __init__(self, table: Table, own: dict[Name, Decl]) -> None:
        self.table, self.own = table, own
        self.families: set[Name] = set()
        self._digests: dict[Name, int] = {}
        self._open: set[Name] = set()
        self._memo: dict[tuple[Name, ...], dict[int, int]] = {}

    def const(self, name: Name) -> tuple[Any, ...]:
        decl = self.own.get(name)
        if decl is None:
            return ("imported", name)
        if decl.kind in _FAMILY:
            self.families.add(name)
            return ("family", name)
        found = self._digests.get(name)
        if found is None:
            if name in self._open:
                raise BadOlean("a definition that contains itself")
            self._open.add(name)
            parts: tuple[Any, ...] = (len(decl.levels), self.expr(decl.type, decl.levels))
            if decl.kind != "theorem":
                assert decl.value is not None
                parts += (decl.unsafe, self.expr(decl.value, decl.levels))
            found = self._digests[name] = self.table.intern(("digest", decl.kind, *parts))
        return ("same", found)

    def level(self, number: int, levels: tuple[Name, ...]) -> tuple[Any, ...]:
        node = self.table.nodes[number]
        if node[0] == "param":
            if node[1] not in levels:
                raise BadOlean("a universe parameter that is not declared")
            return ("param", levels.index(node[1]))
        return (node[0], *(self.level(child, levels) for child in node[1:]))

    def expr(self, number: int, levels: tuple[Name, ...]) -> int:
        memo = self._memo.setdefault(levels, {})
        stack = [number]
        while stack:
            at = stack[-1]
            if at in memo:
                stack.pop()
                continue
            node = self.table.nodes[at]
            below = children(node)
            missing = [child for child in below if child not in memo]
            if missing:
                stack += missing
                continue
            memo[at] = self.table.intern(self._node(node, [memo[child] for child in below], levels))
            stack.pop()
        return memo[number]

    def _node(self, node: tuple[Any, ...], below: list[int], levels: tuple[Name, ...]) -> tuple[Any, ...]:
        if node[0] == "const":
            return ("Const", self.const(node[1]), tuple(self.level(one, levels) for one in node[2]))
        if node[0] == "sort":
            return ("Sort", self.level(node[1], levels))
        if node[0] == "proj":
            return ("Proj", self.const(node[1]), node[2], *below)
        return (node[0].title(), *below) if below else node

    def family(self, decl: Decl) -> tuple[Any, ...]:
        """All of a member of an inductive family, or of an axiom; what it names is compared too."""
        for name in (*decl.all, *decl.ctors, decl.of):
            if name in self.own and self.own[name].kind in _FAMILY:
                self.families.add(name)
        rules = tuple((ctor, fields, self.expr(right, decl.levels)) for ctor, fields, right in decl.rules)
        head = (decl.kind, len(decl.levels), self.expr(decl.type, decl.levels), decl.unsafe)
        return (*head, decl.all, decl.ctors, decl.of, decl.numbers, decl.flags, rules)


def differences(table: Table, challenge: dict[Name, Decl], submission: dict[Name, Decl], target: Name) -> str | None:
    """What of a statement the submission has otherwise than the challenge; None where nothing.

    The types of the two targets, and everything own that they rest on. Raises BadOlean.
    """
    asked, given = _Canon(table, challenge), _Canon(table, submission)
    want, have = challenge[target], submission[target]
    if len(want.levels) != len(have.levels):
        return "the universe parameters of the statement"
    if asked.expr(want.type, want.levels) != given.expr(have.type, have.levels):
        return "the statement"
    done: set[Name] = set()
    while todo := (asked.families | given.families) - done:
        for name in todo:
            done.add(name)
            one, other = challenge.get(name), submission.get(name)
            if one is None or other is None or asked.family(one) != given.family(other):
                return f"the definition of {'.'.join(map(str, name))}"
    return None
