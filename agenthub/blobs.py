"""Blobs by content: large parts that do not travel inside JSON."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from agenthub.errors import HostFault, WireError

__all__ = ["BlobStore", "Blobs", "MemoryBlobs", "put_all"]

_MOST_BYTES = 256 << 20


class Blobs(Protocol):
    """Where blobs are kept by content. Both may block: call them from a thread."""

    def get(self, sha256: str) -> bytes:
        """The blob. Raises WireError 404 `unknown_blob`, HostFault."""

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a blob; the same again changes nothing. Raises WireError 422 `hash_mismatch`, HostFault."""


class MemoryBlobs:
    """Blobs of a process that has no folder for them: the last 256 MiB."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._blobs: dict[str, bytes] = {}
        self._most_bytes, self._bytes = most_bytes, 0

    def get(self, sha256: str) -> bytes:
        """As `Blobs.get`."""
        if sha256 not in self._blobs:
            raise _unknown(sha256)
        return self._blobs[sha256]

    def put(self, sha256: str, data: bytes) -> None:
        """As `Blobs.put`."""
        _check(sha256, data)
        if sha256 in self._blobs:
            return
        self._blobs[sha256] = data
        self._bytes += len(data)
        while self._bytes > self._most_bytes and len(self._blobs) > 1:
            self._bytes -= len(self._blobs.pop(next(iter(self._blobs))))


def put_all(blobs: Blobs, contents: Mapping[str, bytes]) -> None:
    """Keep every one of them. Raises as `Blobs.put` does."""
    for sha256, data in contents.items():
        blobs.put(sha256, data)


def _check(sha256: str, data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WireError("hash_mismatch", 422, f"the data's hash is {found}, not {sha256}")


def _unknown(sha256: str) -> WireError:
    return WireError("unknown_blob", 404, f"no blob has the hash {sha256}")


class BlobStore:
    """Files named by the SHA-256 of what is in them. Blocking: call it from a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, sha256: str) -> bytes:
        """The blob.

        Raises:
            WireError: 404 `unknown_blob`.
            HostFault: it cannot be read, or what is on disk is not what its name says.
        """
        try:
            data = self._path(sha256).read_bytes()
        except FileNotFoundError:
            raise _unknown(sha256) from None
        except OSError as error:
            raise HostFault(f"blob {sha256}: {error}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise HostFault(f"blob {sha256}: damaged on disk")
        return data

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a blob; the same again changes nothing.

        Raises:
            WireError: 422 `hash_mismatch`: the data has another hash.
            HostFault: it cannot be written.
        """
        _check(sha256, data)
        path = self._path(sha256)
        draft = path.with_name(f"{sha256}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                return
            try:
                draft.write_bytes(data)
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise HostFault(f"blob {sha256}: {error}") from error

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256
