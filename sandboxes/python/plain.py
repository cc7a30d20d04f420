"""Plain values as JSON: what may pass between a grading box and the hub. Standard library only; both sides use it.

    None, bool, str, int below 2**53, finite float, list    themselves
    everything else                                        {"t": tag, "v": ...}

A value is plain when its exact type is one of these all the way down; a subclass is not, because it could compare
equal to anything. Decoding makes builtins alone, checks every tag, and bounds depth and size.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["MAX_DEPTH", "MAX_NODES", "NotPlain", "pack", "unpack"]

MAX_DEPTH = 100
MAX_NODES = 1_000_000
_EXACT = 1 << 53


class NotPlain(ValueError):
    """A value, or its encoding, is not plain."""


def pack(value: Any) -> Any:
    """The JSON form of a plain value.

    Raises:
        NotPlain: the value holds something else, is too deep, or is too large.
    """
    return _Packer().pack(value, 0)


def unpack(form: Any) -> Any:
    """The value of a JSON form.

    Raises:
        NotPlain: the form is not one that `pack` makes, is too deep, or is too large.
    """
    return _Unpacker().unpack(form, 0)


class _Counted:
    def __init__(self) -> None:
        self._nodes = 0

    def _count(self, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise NotPlain(f"nested deeper than {MAX_DEPTH}")
        if self._nodes > MAX_NODES:
            raise NotPlain(f"more than {MAX_NODES} values")


class _Packer(_Counted):
    def pack(self, value: Any, depth: int) -> Any:
        self._count(depth)
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -_EXACT < value < _EXACT else {"t": "int", "v": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"t": "float", "v": repr(value)}
        if kind is complex:
            return {"t": "complex", "v": [repr(value.real), repr(value.imag)]}
        if kind in (bytes, bytearray):
            if kind is bytearray:
                raise NotPlain("bytearray is not a plain type")
            return {"t": "bytes", "v": value.hex()}
        if kind is dict:
            rows = [[self.pack(key, depth + 1), self.pack(item, depth + 1)] for key, item in value.items()]
            return {"t": "dict", "v": rows}
        if kind in (list, tuple, set, frozenset):
            items = [self.pack(item, depth + 1) for item in value]
            return items if kind is list else {"t": kind.__name__, "v": items}
        raise NotPlain(f"{kind.__module__}.{kind.__qualname__} is not a plain type")


class _Unpacker(_Counted):
    def unpack(self, form: Any, depth: int) -> Any:
        self._count(depth)
        if form is None or isinstance(form, bool | str):
            return form
        if isinstance(form, int):
            if not -_EXACT < form < _EXACT:
                raise NotPlain("a large integer must be tagged")
            return form
        if isinstance(form, float):
            if not math.isfinite(form):
                raise NotPlain("a float that is not finite must be tagged")
            return form
        if isinstance(form, list):
            return [self.unpack(item, depth + 1) for item in form]
        if not isinstance(form, dict) or form.keys() != {"t", "v"}:
            raise NotPlain("expected a tag and a value")
        return self._tagged(form["t"], form["v"], depth)

    def _tagged(self, tag: Any, body: Any, depth: int) -> Any:
        try:
            if tag == "int" and isinstance(body, str):
                return int(body, 16)
            if tag == "float" and body in ("nan", "inf", "-inf"):
                return float(body)
            if tag == "bytes" and isinstance(body, str):
                return bytes.fromhex(body)
            if tag == "complex":
                real, imaginary = body
                if isinstance(real, str) and isinstance(imaginary, str):
                    return complex(float(real), float(imaginary))
            if isinstance(body, list):
                return self._container(tag, body, depth)
        except (TypeError, ValueError) as error:
            raise error if isinstance(error, NotPlain) else NotPlain(f"a malformed {tag!s:.20}") from error
        raise NotPlain(f"a malformed or unknown tag {tag!s:.20}")

    def _container(self, tag: Any, body: list[Any], depth: int) -> Any:
        if tag == "dict":
            pairs = ((self.unpack(key, depth + 1), self.unpack(item, depth + 1)) for key, item in body)
            return dict(pairs)
        if tag in ("tuple", "set", "frozenset"):
            items = [self.unpack(item, depth + 1) for item in body]
            made: Any = {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](items)
            return made
        raise NotPlain(f"a malformed or unknown tag {tag!s:.20}")
