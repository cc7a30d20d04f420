"""A compiled module's own declarations, as records."""

from __future__ import annotations

from dataclasses import dataclass

from agenthub.sandboxes.lean.olean import BadOlean, Name, Region

__all__ = ["Decl", "Import", "Module", "read_module"]

KINDS = ("axiom", "def", "theorem", "opaque", "quot", "inductive", "constructor", "recursor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decl:
    """One declaration. Expressions are numbers of the table that its region was given."""

    kind: str
    name: Name
    levels: tuple[Name, ...]
    type: int
    value: int | None = None
    """Of a definition, theorem or opaque."""
    unsafe: bool = False
    """Unsafe or partial."""
    hints: int = 0
    """Of a definition: 0 opaque, 1 abbreviation, 2 + height; a matter of speed alone."""
    all: tuple[Name, ...] = ()
    """The mutual block, as the file tells it."""
    ctors: tuple[Name, ...] = ()
    of: Name = ()
    """Of a constructor: its inductive type."""
    numbers: tuple[int, ...] = ()
    """inductive: parameters, indices, nested; constructor: index, parameters, fields; recursor: parameters, indices,
    motives, minors."""
    flags: tuple[bool, ...] = ()
    rules: tuple[tuple[Name, int, int], ...] = ()
    """Of a recursor: constructor, fields, right-hand side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """An import of a module."""

    module: Name
    all: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """What one file declares."""

    imports: tuple[Import, ...]
    own: dict[Name, Decl]


class _Reader:
    def __init__(self, region: Region) -> None:
        self.region, self.name, self.names = region, region.name, region.names

    def decl(self, address: int) -> Decl:
        region = self.region
        tag, (value,) = region.fields(address, 1)
        if tag >= len(KINDS):
            raise BadOlean("a declaration of no kind")
        kind = KINDS[tag]
        counts = {"axiom": 1, "def": 4, "theorem": 3, "opaque": 3, "quot": 1}
        counts |= {"inductive": 6, "constructor": 5, "recursor": 7}
        fields = region.exactly(value, 0, counts[kind])
        name, levels, type_ = region.exactly(fields[0], 0, 3)
        names = region.names(levels)
        if len(set(names)) != len(names):
            raise BadOlean("a universe parameter occurs twice")
        return self._body(kind, value, fields, (self.name(name), names, region.expr(type_)))

    def _body(self, kind: str, at: int, fields: tuple[int, ...], head: tuple[Name, tuple[Name, ...], int]) -> Decl:
        region, nat = self.region, self.region.nat
        name, levels, type_ = head
        more: dict[str, object] = {}
        if kind == "axiom":
            more = {"unsafe": region.flag(at, 0)}
        elif kind == "def":
            safety = region.byte(at, 0)
            if safety > 2:
                raise BadOlean("a definition of unknown safety")
            more = {"value": region.expr(fields[1]), "hints": self._hints(fields[2]), "unsafe": safety != 1}
            more["all"] = self.names(fields[3])
        elif kind == "theorem":
            more = {"value": region.expr(fields[1]), "all": self.names(fields[2])}
        elif kind == "opaque":
            more = {"value": region.expr(fields[1]), "all": self.names(fields[2]), "unsafe": region.flag(at, 0)}
        elif kind == "inductive":
            more = {"numbers": (nat(fields[1]), nat(fields[2]), nat(fields[5])), "all": self.names(fields[3])}
            more |= {"ctors": self.names(fields[4]), "flags": (region.flag(at, 0), region.flag(at, 2))}
            more["unsafe"] = region.flag(at, 1)
        elif kind == "constructor":
            more = {"of": self.name(fields[1]), "numbers": tuple(nat(one) for one in fields[2:5])}
            more["unsafe"] = region.flag(at, 0)
        elif kind == "recursor":
            more = {"all": self.names(fields[1]), "numbers": tuple(nat(one) for one in fields[2:6])}
            more |= {"rules": tuple(self._rule(one) for one in region.listed(fields[6]))}
            more |= {"flags": (region.flag(at, 0),), "unsafe": region.flag(at, 1)}
        return Decl(kind=kind, name=name, levels=levels, type=type_, **more)  # type: ignore[arg-type]

    def _rule(self, address: int) -> tuple[Name, int, int]:
        ctor, fields, right = self.region.exactly(address, 0, 3)
        return self.name(ctor), self.region.nat(fields), self.region.expr(right)

    def _hints(self, address: int) -> int:
        if address & 1:
            if address >> 1 > 1:
                raise BadOlean("hints that are none")
            return address >> 1
        self.region.exactly(address, 2, 0)
        return 2 + self.region.u32(address)


def read_module(region: Region) -> Module:
    """The declarations of a region's last part, which must be consistent. Raises BadOlean."""
    tag, fields = region.fields(region.root, 5)
    if tag != 0:
        raise BadOlean("module data that is none")
    reader = _Reader(region)
    imports = tuple(
        Import(module=region.name(region.exactly(one, 0, 1)[0]), all=region.flag(one, 0))
        for one in region.array(fields[0])
    )
    own: dict[Name, Decl] = {}
    for address in region.array(fields[2]):
        decl = reader.decl(address)
        if decl.name in own:
            raise BadOlean(f"{'.'.join(map(str, decl.name))} is declared twice")
        own[decl.name] = decl
    if [reader.name(one) for one in region.array(fields[1])] != list(own):
        raise BadOlean("the list of names is not that of the declarations")
    return Module(imports=imports, own=own)
