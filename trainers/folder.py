"""The folder of a run: its config, its line files and who may write them.

    DIR/config.yaml  trajectories.jsonl  metrics.jsonl  checkpoints/  report.html

A line file is only ever appended to, or cut back to the length that a checkpoint knows, so that a run that was
interrupted and resumed equals one that was not.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ruamel.yaml import YAML

from agenthub.codec import encode
from agenthub.config import load_yaml
from agenthub.errors import ConfigError, UserError
from agenthub.records import Trajectory
from agenthub.trainers.checkpoint import write_atomically
from agenthub.trainers.config import Recipe

__all__ = ["RESUMABLE", "RunFolder"]

LINES = ("metrics.jsonl", "trajectories.jsonl")
RESUMABLE = ("checkpoint_every", "keep_checkpoints", "policy.vllm.port", "policy.vllm.url", "updates")
"""Keys that `--set` may change when a run is resumed: how long it is, what is kept, and where its server is."""


class RunFolder:
    """An open run folder; one process at a time."""

    def __init__(self, path: Path, recipe: Recipe, lock: BinaryIO) -> None:
        self.path, self.recipe, self._lock = path, recipe, lock
        self._files = {name: (path / name).open("ab") for name in LINES}

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, replace: bool = False) -> RunFolder:
        """A new run.

        Args:
            replace: remove what an earlier run wrote there; other files stay.

        Raises:
            UserError: the folder holds a run already, is in use, or cannot be written.
        """
        if (path / "config.yaml").exists() and not replace:
            raise UserError(f"{path} holds a run already; --resume goes on with it, --replace drops it")
        lock = _locked(path)
        _remove_run(path)
        stream = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.dump(recipe.model_dump(mode="json"), stream)
        write_atomically(path / "config.yaml", stream.getvalue().encode())
        return cls(path, recipe, lock)

    @classmethod
    def reopen(cls, path: Path, overrides: Iterable[str] = ()) -> RunFolder:
        """A run to go on with.

        Raises:
            UserError: there is no run, it is in use, or an override would make it another run.
            ConfigError: its config cannot be read.
        """
        if not (path / "config.yaml").is_file():
            raise UserError(f"{path} holds no run to resume: it has no config.yaml")
        overrides = list(overrides)
        for text in overrides:
            if text.partition("=")[0].strip() not in RESUMABLE:
                raise ConfigError(f"--set {text}", f"a resumed run may change only {', '.join(RESUMABLE)}")
        recipe = load_yaml(path / "config.yaml", Recipe, overrides=overrides)
        return cls(path, recipe, _locked(path))

    def metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self._append("metrics.jsonl", [row])

    def trajectories(self, update: int, trajectories: Iterable[Trajectory]) -> None:
        """Append a line for each trajectory; its metadata says in which update it was played."""
        rows = [encode(trajectory) for trajectory in trajectories]
        for row in rows:
            row["metadata"] = {**row["metadata"], "update": update}
        self._append("trajectories.jsonl", rows)

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n" for row in rows)
        self._files[name].write(text.encode())
        self._files[name].flush()

    def sizes(self) -> dict[str, int]:
        """Bytes of each line file, all of them on the disk when this returns."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Cut the line files back to what a checkpoint knows; files that it does not name become empty.

        Raises:
            UserError: a file is shorter than the checkpoint says.
        """
        for name, file in self._files.items():
            size = sizes.get(name, 0)
            there = os.fstat(file.fileno()).st_size
            if there < size:
                raise UserError(f"{self.path / name} has {there} bytes, the checkpoint was written at {size}")
            file.truncate(size)
            file.seek(size)

    def take_back(self) -> None:
        """Remove a run that has written neither a line nor a checkpoint, so that its folder is free for another.

        What else lies there stays, the log of its hub too.
        """
        if not any(self.sizes().values()) and not any((self.path / "checkpoints").glob("update-*")):
            _remove_run(self.path)

    def close(self) -> None:
        """Close the files and let go of the folder."""
        for file in self._files.values():
            file.close()
        self._lock.close()


def _remove_run(path: Path) -> None:
    for name in (
        "config.yaml",
        "report.html",
        "canaries.jsonl",
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite-shm",
        *LINES,
    ):
        (path / name).unlink(missing_ok=True)
    for written in (path / "checkpoints").glob("update-*"):
        if written.is_dir():
            shutil.rmtree(written)
        else:
            written.unlink()


def _locked(path: Path) -> BinaryIO:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("wb")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UserError(f"{path} is in use by another process") from error
    return lock
