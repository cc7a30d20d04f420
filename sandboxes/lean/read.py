"""The judge's second step: is what was compiled the theorem that was asked for, and what does it rest on?

The compiled parts are data that may be forged. What passes here has only been read; the kernel has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agenthub.sandboxes.lean.export import export
from agenthub.sandboxes.lean.index import AXIOM, UNSAFE, Imported
from agenthub.sandboxes.lean.module import Decl, Module, read_module
from agenthub.sandboxes.lean.olean import BadOlean, Name, Region, Table
from agenthub.sandboxes.lean.structure import differences, used_by
from agenthub.sandboxes.lean.verdict import Reason

__all__ = ["Asked", "Reading", "decode", "name_of", "read"]

_SORRY: Name = ("sorryAx",)
_TRUST: Name = ("Lean", "trustCompiler")
_COMPILED: frozenset[Name] = frozenset({("Lean", "reduceBool"), ("Lean", "reduceNat")})
"""Imported opaque constants whose values, which are not in exported files, rest on the axiom `_TRUST`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the second step found."""

    reason: Reason
    detail: str = ""
    axioms: tuple[str, ...] = ()
    numbers: str = ""
    """For the kernel; empty unless the reason is ok."""
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A challenge as it was compiled apart."""

    parts: tuple[bytes, ...]
    inside: Name = ()
    """The namespace that it was compiled in, beside others."""


class _No(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def name_of(text: str) -> Name:
    """A name as it is written; what stands in guillemets is one part of it."""
    return tuple(quoted or plain for quoted, plain in re.findall(r"«([^»]*)»|([^.«»]+)", text))


def decode(
    parts: Sequence[bytes], table: Table, *, pointer: int, versions: frozenset[str], inside: Name = ()
) -> Module:
    """A file's declarations. Raises BadOlean for whatever is wrong with it."""
    try:
        return read_module(Region(parts, table, pointer=pointer, versions=versions, inside=inside))
    except (IndexError, KeyError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise BadOlean(f"{type(error).__name__}: {error}") from error


def read(
    asked: Asked,
    parts: Sequence[bytes],
    targets: Sequence[str],
    permitted: Sequence[str],
    imported: Imported,
    *,
    pointer: int,
    versions: frozenset[str],
    roots: Collection[str] = (),
) -> Reading:
    """Judge compiled parts. Never raises for what is in them.

    Args:
        targets: theorems that must be there.
        permitted: axioms that they may rest on, by exact name.
        roots: modules that the submission's text imports; its parts may import these, `Init`, and no other.
    """
    table = Table()
    try:
        challenge = decode(asked.parts, table, pointer=pointer, versions=versions, inside=asked.inside)
    except BadOlean as error:
        return Reading(reason=Reason.INFRA_ERROR, detail=f"the compiled challenge cannot be read: {error}")
    try:
        module = decode(parts, table, pointer=pointer, versions=versions)
        # The replay's program names these modules, so a forged name of one could be text of that program.
        strange = {_shown(one.module) for one in module.imports} - {"Init", *roots}
        if strange:
            raise BadOlean(f"it imports {min(strange)[:100]}, which its text does not")
        return _judged(table, challenge, module, [name_of(one) for one in targets], set(permitted), imported)
    except _No as no:
        return Reading(reason=no.reason, detail=str(no))
    except (BadOlean, RecursionError, MemoryError, IndexError, KeyError, ValueError, AssertionError) as error:
        return Reading(reason=Reason.KERNEL_REJECT, detail=f"the compiled file is forged or damaged: {error}")


def _judged(
    table: Table, challenge: Module, module: Module, targets: list[Name], permitted: set[str], imported: Imported
) -> Reading:
    own = module.own
    for target in targets:
        _target(table, challenge, own, target)
    missing = {one.module for one in challenge.imports} - {one.module for one in module.imports}
    if missing:
        raise _No(Reason.STATEMENT_MISMATCH, f"it does not import {_shown(missing.pop())}")
    shadowed = next((name for name in own if name in imported), None)
    if shadowed is not None:
        raise _No(Reason.STATEMENT_MISMATCH, f"it declares {_shown(shadowed)}, which is an imported name")
    axioms = _axioms(table, own, targets, imported)
    if _SORRY in axioms:
        raise _No(Reason.SORRY, "the proof rests on sorry")
    illegal = sorted(_shown(name) for name in axioms if _shown(name) not in permitted)
    if illegal:
        raise _No(Reason.ILLEGAL_AXIOM, f"the proof rests on the axiom {illegal[0]}")
    forged = next((name for name in axioms if name in own and name not in challenge.own), None)
    if forged is not None:
        raise _No(Reason.ILLEGAL_AXIOM, f"the axiom {_shown(forged)} is the submission's own")
    for axiom in axioms & own.keys():
        if differences(table, challenge.own, own, axiom) is not None:
            raise _No(Reason.ILLEGAL_AXIOM, f"the axiom {_shown(axiom)} is not the challenge's")
    return Reading(
        reason=Reason.OK,
        axioms=tuple(sorted(map(_shown, axioms))),
        numbers=export(table, own, targets),
        imports=tuple(_shown(one.module) for one in module.imports),
    )


def _target(table: Table, challenge: Module, own: dict[Name, Decl], target: Name) -> None:
    wanted = challenge.own.get(target)
    if wanted is None:
        raise _No(Reason.INFRA_ERROR, f"the challenge has no theorem {_shown(target)}")
    found = own.get(target)
    if found is None:
        raise _No(Reason.MISSING_TARGET, f"there is no theorem {_shown(target)}")
    if found.kind != "theorem" or found.unsafe:
        raise _No(Reason.WRONG_KIND, f"{_shown(target)} is no theorem but a {found.kind}")
    differs = differences(table, challenge.own, own, target)
    if differs is not None:
        raise _No(Reason.STATEMENT_MISMATCH, f"not as asked: {differs}")


def _axioms(table: Table, own: dict[Name, Decl], targets: list[Name], imported: Imported) -> set[Name]:
    """Axioms that the targets reach, through types, values and opaque ones; nothing reached may be unsafe."""
    axioms: set[Name] = set()
    seen, todo = set(targets), list(targets)
    while todo:
        name = todo.pop()
        decl = own.get(name)
        if decl is None:
            flags = imported.get(name)
            if flags is None:
                raise _No(Reason.KERNEL_REJECT, f"it uses {_shown(name)}, which nothing declares")
            if flags & AXIOM:
                axioms.add(name)
            elif name in _COMPILED:
                axioms.add(_TRUST)
            elif flags & UNSAFE:
                raise _No(Reason.WRONG_KIND, f"it rests on {_shown(name)}, which is unsafe")
            continue
        if decl.unsafe:
            raise _No(Reason.WRONG_KIND, f"it rests on {_shown(name)}, which is unsafe or partial")
        if decl.kind == "axiom":
            axioms.add(name)
        fresh = used_by(table, decl) - seen
        seen |= fresh
        todo += fresh
    return axioms


def _shown(name: Name) -> str:
    return ".".join(map(str, name))
