"""Refuses to be imported as `trainers`: the import path is `agenthub.trainers`."""

from __future__ import annotations

if __name__ == "trainers":
    raise ImportError("import agenthub.trainers, not trainers: the folder is part of the agenthub package")
