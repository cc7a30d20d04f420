"""Values that several parts of the schema share: names, counts, seconds, sizes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

__all__ = ["Count", "Name", "Seconds", "Size", "bytes_of", "names"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def names(text: str) -> frozenset[str]:
    """The words of a text: keys that are refused by name as not built."""
    return frozenset(text.split())


def bytes_of(size: str) -> int:
    """Bytes of `512M`, `4G`, `64K`.

    Raises:
        ValueError: it is not written so.
    """
    match = re.fullmatch(r"([1-9]\d{0,8})([KMG])", size)
    if match is None:
        raise ValueError(f"a size is {size!r}; expected a number with K, M or G, as in 512M")
    return int(match[1]) * _UNITS[match[2]]


def _size(size: str) -> str:
    bytes_of(size)
    return size


Size = Annotated[str, AfterValidator(_size)]
