"""Token runs side by side without padding, what several of them begin with stored once.

Runs are sorted, so that those that begin alike are neighbours. Each run stores the tokens that its neighbour before it
does not have; its last tokens look back over its whole path. Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agenthub.records import Ints

__all__ = ["Indices", "Pack", "packs"]

Indices = NDArray[np.int64]
SHARED = 8
"""Fewest tokens that are worth sharing: a run that shares none needs no mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Some runs as P stored tokens; the runs that store any are its R rows."""

    runs: tuple[int, ...]
    """Which runs, in sorted order."""
    ids: Indices
    """i64[P]"""
    positions: Indices
    """i64[P]: place of the token within its run."""
    paths: tuple[Indices, ...]
    """For each of `runs` the places within P of its tokens, in order."""
    own: tuple[int, ...]
    """For each of `runs` how many of its last tokens it stores; 0 for one that is the beginning of its neighbour."""

    @property
    def rows(self) -> list[int]:
        """Indices into `runs` of those that store tokens."""
        return [row for row, count in enumerate(self.own) if count]


def packs(runs: Sequence[Ints], *, max_tokens: int, share: bool = True) -> Iterator[Pack]:
    """Every run exactly once, in packs of at most `max_tokens` stored tokens (or one run).

    Args:
        runs: none of them empty.
        share: store what neighbours begin with once. Without it runs come longest first, and each counts as long as
            the longest of its pack.
    """
    if share:
        order = sorted(range(len(runs)), key=lambda n: (runs[n].astype(">i4").tobytes(), n))
    else:
        order = sorted(range(len(runs)), key=lambda n: (-runs[n].size, n))
    pack: list[int] = []
    known: list[int] = []
    stored = 0
    for n in order:
        shared = _shared(runs[pack[-1]], runs[n]) if share and pack else 0
        size = runs[n].size if share or not pack else runs[pack[0]].size
        if pack and stored + size - shared > max_tokens:
            yield _pack(runs, pack, known)
            pack, known, stored, shared = [], [], 0, 0
            size = runs[n].size
        pack.append(n)
        known.append(shared)
        stored += size - shared
    if pack:
        yield _pack(runs, pack, known)


def _shared(before: Ints, run: Ints) -> int:
    """How many first tokens two runs have in common; 0 where they are too few."""
    size = min(before.size, run.size)
    differs = np.flatnonzero(before[:size] != run[:size])
    shared = int(differs[0]) if differs.size else size
    return shared if shared >= SHARED or shared == run.size else 0


def _pack(runs: Sequence[Ints], pack: Sequence[int], known: Sequence[int]) -> Pack:
    paths: list[Indices] = []
    ids, positions = [], []
    end = 0
    for n, shared in zip(pack, known, strict=True):
        own = runs[n].size - shared
        fresh = np.arange(end, end + own, dtype=np.int64)
        paths.append(np.concatenate([paths[-1][:shared], fresh]) if shared else fresh)
        ids.append(runs[n][shared:])
        positions.append(np.arange(shared, runs[n].size))
        end += own
    return Pack(
        runs=tuple(pack),
        ids=np.concatenate(ids).astype(np.int64),
        positions=np.concatenate(positions).astype(np.int64),
        paths=tuple(paths),
        own=tuple(runs[n].size - shared for n, shared in zip(pack, known, strict=True)),
    )
