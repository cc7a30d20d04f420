"""Which questions are held out: one in five, by its text alone, so that no seed trains on what another holds out."""

from __future__ import annotations

import zlib

__all__ = ["part_of"]

_HELD_OUT_OF = 5


def part_of(text: str) -> str:
    """`eval` or `train`, by a checksum of what the policy is told."""
    return "eval" if zlib.crc32(text.encode()) % _HELD_OUT_OF == 0 else "train"
