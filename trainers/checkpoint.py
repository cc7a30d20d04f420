"""Checkpoints: the whole state of a run at the boundary of an update, written so that a killed process loses none.

A checkpoint is two files. `update-000012.pt` holds the state; `update-000012.json`, renamed into place last, holds its
size, its hash and the length of the run's line files at that moment. Without the second the first does not count.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agenthub.errors import UserError

__all__ = ["Checkpoint", "Checkpoints", "write_atomically"]

FORMAT = "agenthub.checkpoint/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state to go on from."""

    update: int
    """Updates done; also the weight version."""
    state: Mapping[str, Any]
    sizes: Mapping[str, int]
    """Bytes of each line file of the run, by name."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a crash leaves the old or the new one, and the new one is on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Checkpoints:
    """The checkpoints of one run folder; the last `keep` are kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, update: int, state: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        """Write one checkpoint, then drop the oldest ones.

        Raises:
            OSError: the disk is full or not writable; the checkpoints from before are untouched.
        """
        target = self._folder / f"update-{update:06d}.pt"
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        data = buffer.getvalue()
        write_atomically(target, data)
        manifest = {
            "format": FORMAT,
            "update": update,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "sizes": dict(sizes),
        }
        write_atomically(target.with_suffix(".json"), json.dumps(manifest, indent=1).encode())
        for old in self._manifests()[: -self._keep]:
            old.unlink(missing_ok=True)
            old.with_suffix(".pt").unlink(missing_ok=True)

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, or None where there is none at all, and a line on each that is not.

        Raises:
            UserError: there are checkpoints, and none of them can be used.
        """
        broken: list[str] = []
        manifests = self._manifests()
        for manifest in reversed(manifests):
            try:
                return _read(manifest), broken
            except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, *_PICKLE) as error:
                broken.append(f"{manifest.with_suffix('.pt').name} cannot be used: {error}")
        if manifests:
            raise UserError(f"{self._folder}: no checkpoint can be used; {'; '.join(broken)}")
        return None, broken

    def _manifests(self) -> list[Path]:
        return sorted(self._folder.glob("update-*.json"))


_PICKLE = (pickle.UnpicklingError, zipfile.BadZipFile)


def _read(manifest: Path) -> Checkpoint:
    row = json.loads(manifest.read_bytes())
    if row["format"] != FORMAT:
        raise ValueError(f"its format is {row['format']!r}; expected {FORMAT!r}")
    path = manifest.with_suffix(".pt")
    data = path.read_bytes()
    if len(data) != row["bytes"]:
        raise ValueError(f"it has {len(data)} bytes, not {row['bytes']}")
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ValueError("its content does not have the hash it was written with")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return Checkpoint(update=int(row["update"]), state=state, sizes={str(k): int(v) for k, v in row["sizes"].items()})
