"""Checkpoints: the whole state of a run at the boundary of an update, written so that a killed process loses none.

A checkpoint is two files. `update-000012.pt` holds the state; `update-000012.json`, renamed into place last, holds its
size, its hash and the length of the run's line files at that moment. Without the second the first does not count.
Where several processes share the model, each writes its part of weights and optimiser under `update-000012.shards/`
(torch's distributed checkpoints), and the second file holds the sizes of those files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agenthub.errors import UserError
from agenthub.trainers.sharded import whole_weights

__all__ = ["Apart", "Checkpoint", "Checkpoints", "write_atomically"]

FORMAT = "agenthub.checkpoint/1"


class Apart(dict[str, Any]):
    """A state whose largest part every rank writes for itself; read back, `shards` is the folder that it lies in.

    Its weights, whole, are read when `model` is asked for.
    """

    def __init__(self, rest: Mapping[str, Any], *, write: Callable[[Path], None] | None = None) -> None:
        super().__init__(rest)
        self.write = write

    def __missing__(self, key: str) -> Any:
        if key != "model" or "shards" not in self:
            raise KeyError(key)
        return whole_weights(Path(self["shards"]))


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
        shards = target.with_suffix(".shards")
        shutil.rmtree(shards, ignore_errors=True)
        apart = [key for key, value in state.items() if isinstance(value, Apart) and value.write is not None]
        for key in apart:
            state[key].write(shards / key)
        buffer = io.BytesIO()
        torch.save({key: dict(value) if key in apart else value for key, value in state.items()}, buffer)
        data = buffer.getvalue()
        write_atomically(target, data)
        manifest = {
            "format": FORMAT,
            "update": update,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "sizes": dict(sizes),
            "shards": _sizes(shards),
        }
        write_atomically(target.with_suffix(".json"), json.dumps(manifest, indent=1).encode())
        for old in self._manifests()[: -self._keep]:
            old.unlink(missing_ok=True)
            old.with_suffix(".pt").unlink(missing_ok=True)
            shutil.rmtree(old.with_suffix(".shards"), ignore_errors=True)

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
    shards = manifest.with_suffix(".shards")
    if _sizes(shards) != row.get("shards", {}):
        raise ValueError("its shards are not of the sizes that they were written with")
    for key in {name.partition("/")[0] for name in _sizes(shards)}:
        state[key] = Apart({**state[key], "shards": str(shards / key)})
    return Checkpoint(update=int(row["update"]), state=state, sizes={str(k): int(v) for k, v in row["sizes"].items()})


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its path; empty where there is none."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
