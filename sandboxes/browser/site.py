"""What a page may load: every request of a context is answered here, and none reaches a network."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from agenthub.errors import UserError
from agenthub.records import frozen

__all__ = ["Files", "Folder", "Request", "Response", "Site", "miniwob_folder"]

_TYPES = {".js": "text/javascript", ".html": "text/html; charset=utf-8", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a page asks for."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The address's path, decoded."""
        return unquote(urlsplit(self.url).path) or "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What it is given."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=frozen)
    body: bytes = b""
    encoded: str = ""
    """The body in base64, where it is known already."""

    def fulfilled(self) -> dict[str, Any]:
        """The arguments of `Fetch.fulfillRequest`."""
        # Of one name there may be several, as of set-cookie: a line each.
        headers = [{"name": name, "value": row} for name, value in self.headers.items() for row in value.split("\n")]
        body = self.encoded or base64.b64encode(self.body).decode()
        return {"responseCode": self.status, "responseHeaders": headers, "body": body}


class Site(Protocol):
    """One origin and everything on it."""

    origin: str
    """Scheme and host, without a slash at the end."""

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """What a request below the origin gets; never raises for what was asked."""


_MISSING = Response(status=404, headers=frozen({"content-type": "text/plain"}), body=b"not found")


class Files:
    """A site of files given by path."""

    def __init__(self, origin: str, files: Mapping[str, bytes]) -> None:
        self.origin = origin
        self._made = {f"/{path}": _response(path, data) for path, data in files.items()}

    def answer(self, request: Request) -> Response:
        """The file of the path; `index.html` for a folder."""
        path = request.path
        return self._made.get(f"{path}index.html" if path.endswith("/") else path, _MISSING)


class Folder:
    """A site of the files in a folder of this machine, read once."""

    def __init__(self, origin: str, root: Path) -> None:
        self.origin, self._root = origin, root.resolve()
        self._made: dict[str, Response] = {}

    def answer(self, request: Request) -> Response:
        """The file of the path."""
        path = request.path
        if path not in self._made:
            found = (self._root / path.lstrip("/")).resolve()
            if not found.is_relative_to(self._root) or not found.is_file():
                return _MISSING
            self._made[path] = _response(path, found.read_bytes())
        return self._made[path]


def miniwob_folder() -> Path:
    """The pages of MiniWoB++.

    Raises:
        UserError: the package is not installed.
    """
    from importlib.util import find_spec

    found = find_spec("miniwob")
    if found is None or not found.submodule_search_locations:
        raise UserError("the pages of MiniWoB++ come with the package miniwob, which is not installed")
    return Path(next(iter(found.submodule_search_locations))) / "html"


def _response(path: str, data: bytes) -> Response:
    suffix = PurePosixPath(path).suffix
    kind = _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Response(headers=frozen({"content-type": kind}), body=data, encoded=base64.b64encode(data).decode())
