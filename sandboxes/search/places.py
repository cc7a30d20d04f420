"""Which corpora there are: indexes by name or path, and generated ones, made when first asked for and kept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.registry import registry
from agenthub.sandboxes.search.builder import FACTS, FORMAT, build
from agenthub.sandboxes.search.documents import Document

__all__ = ["VARIABLE", "corpora_folder", "find_corpus", "generated", "known"]

VARIABLE = "AGENTHUB_CORPORA"


def corpora_folder() -> Path:
    """Where indexes are kept by name."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(os.environ.get(VARIABLE) or Path(data) / "agenthub" / "corpora")


def known() -> list[str]:
    """Names of the indexes that are there and of those that are made when asked for."""
    folder = corpora_folder()
    made = [path.name for path in folder.iterdir() if (path / FACTS).is_file()] if folder.is_dir() else []
    return sorted({*made, *registry("corpus").names()})


def find_corpus(name: str, config: Mapping[str, Any]) -> Path:
    """The folder of an index: a path, or a name. A generated corpus is made here where it is not there yet.

    Raises:
        UserError: there is none; the nearest name is named. Or a generator refuses its settings.
    """
    if "/" in name:
        path = Path(name).expanduser()
        if not (path / FACTS).is_file():
            raise UserError(f"there is no index at {path}; make one with `agenthub search index CORPUS --out {path}`")
        return path
    if name in registry("corpus").names():
        return generated(name, config)
    if config:
        raise UserError(f"the corpus {name!r} takes no settings: it was indexed before")
    path = corpora_folder() / name
    if not (path / FACTS).is_file():
        raise UnknownName("corpus", name, known())
    return path


def generated(name: str, config: Mapping[str, Any]) -> Path:
    """The index of a generated corpus. Raises as `find_corpus` does."""
    rows = registry("corpus").load(name)
    source = Path(sys.modules[rows.__module__].__file__ or "")
    stamp = hashlib.blake2b(digest_size=8)
    stamp.update(json.dumps([FORMAT, dict(config)], sort_keys=True).encode() + source.read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(cache) / "agenthub" / "corpora" / f"{name}-{stamp.hexdigest()}"
    if (folder / FACTS).is_file():
        return folder
    documents = [_document(row) for row in rows(config)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it; whoever comes second finds it made
            if not (folder / FACTS).is_file():
                shutil.rmtree(folder, ignore_errors=True)
                build(documents, folder, name=name, facts={"config": dict(config)})
    except OSError as error:
        raise UserError(f"the corpus {name!r} cannot be kept in {folder.parent}: {error}") from error
    return folder


def _document(row: Mapping[str, Any]) -> Document:
    links = tuple((words, target) for words, target in row["links"])
    return Document(id=row["id"], title=row["title"], text=row["text"], url=row["url"], links=links)
