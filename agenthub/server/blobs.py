"""Blobs by content: large parts that do not travel inside JSON."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from agenthub.errors import HostFault, WireError

__all__ = ["BlobStore"]


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
            raise WireError("unknown_blob", 404, f"no blob has the hash {sha256}") from None
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
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise WireError("hash_mismatch", 422, f"the data's hash is {found}, not {sha256}")
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
