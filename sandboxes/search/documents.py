"""Reading a corpus: documents one after the other, and what was wrong with those that cannot be used."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agenthub.errors import UserError
from agenthub.sandboxes.search.pages import MAX_LINKS, html_page

__all__ = ["MAX_DOCUMENT_BYTES", "MAX_ID_CHARS", "Document", "Skipped", "read_corpus"]

MAX_DOCUMENT_BYTES = 16 << 20
"""A larger document is skipped, and said so."""
MAX_ID_CHARS = 512
_JSONL = (".jsonl", ".ndjson")
_PAGES = {".html": "html", ".htm": "html", ".xhtml": "html", ".md": "markdown", ".markdown": "markdown", ".txt": "text"}
_HEADING = re.compile(r"^\s*#\s+(.+?)\s*#*\s*$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]\n]{1,200})\]\(([^)\s]{1,2000})\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a corpus."""

    id: str
    title: str
    text: str
    url: str = ""
    links: tuple[tuple[str, str], ...] = ()
    """(words, id or address) of each link, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A document that cannot be used."""

    place: str
    """file:line, or the file."""
    why: str


def read_corpus(path: Path) -> Iterator[Document | Skipped]:
    """The documents of a JSONL file or of a folder, in the order of their names; gzip by a name that ends in `.gz`.

    A row is `{id, contents}` (the first line of the contents is the title) or `{id, title, text, url, links}`. Links
    are not followed out of a folder.

    Raises:
        UserError: there is nothing there, or it is no kind of corpus.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder")
    if _suffix(path) not in _JSONL:
        raise UserError(f"{path}: expected a folder, or a file named *.jsonl or *.jsonl.gz")
    return _rows(path)


def _folder(folder: Path) -> Iterator[Document | Skipped]:
    for directory, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file():
                continue
            if _suffix(path) in _JSONL:
                yield from _rows(path)
            elif _suffix(path) in _PAGES:
                yield _page(path, path.relative_to(folder).as_posix())


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _rows(path: Path) -> Iterator[Document | Skipped]:
    number = 0
    try:
        with _open(path) as stream:
            while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
                number += 1
                place = f"{path}:{number}"
                if len(line) > MAX_DOCUMENT_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(1 << 20)
                    yield Skipped(place=place, why=f"is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
                elif line.strip():
                    yield _row(line, place)
    except (OSError, EOFError, zlib.error) as error:
        yield Skipped(place=f"{path}:{number + 1}", why=f"cannot be read further: {error}")


def _row(line: bytes, place: str) -> Document | Skipped:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Skipped(place=place, why=f"is not UTF-8 at byte {error.start}")
    except (ValueError, RecursionError) as error:
        return Skipped(place=place, why=f"is not JSON: {error}")
    if not isinstance(row, dict):
        return Skipped(place=place, why=f"is {type(row).__name__}; expected an object")
    made = _document(row)
    return Skipped(place=place, why=made) if isinstance(made, str) else made


def _document(row: dict[str, Any]) -> Document | str:
    """The document of a row, or what is wrong with it."""
    identity = row.get("id", row.get("_id"))
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str) or not identity.strip():
        return "has no id"
    if len(identity) > MAX_ID_CHARS:
        return f"has an id of {len(identity)} characters; at most {MAX_ID_CHARS}"
    contents, title, text = row.get("contents"), row.get("title", ""), row.get("text")
    if isinstance(contents, str):
        first, _, rest = contents.partition("\n")
        title, text = (first.strip().strip('"'), rest) if rest.strip() else ("", contents)
    if not isinstance(text, str) or not isinstance(title, str):
        return "has neither `contents` nor `text`, or one that is no string"
    url, links = row.get("url", ""), row.get("links", [])
    if not isinstance(url, str) or not isinstance(links, list):
        return "has a `url` that is no string, or `links` that are no list"
    if not all(isinstance(link, list) and len(link) == 2 and all(isinstance(it, str) for it in link) for link in links):
        return "has `links` that are no list of [words, target]"
    pairs = tuple((_sound(link[0]), _sound(link[1])) for link in links[:MAX_LINKS])
    return Document(id=identity, title=_sound(title), text=_sound(text), url=_sound(url), links=pairs)


def _page(path: Path, name: str) -> Document | Skipped:
    if len(name) > MAX_ID_CHARS:
        return Skipped(place=str(path), why=f"has a name of more than {MAX_ID_CHARS} characters")
    try:
        with _open(path) as stream:
            data = stream.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        return Skipped(place=str(path), why=f"cannot be read: {error}")
    if len(data) > MAX_DOCUMENT_BYTES:
        return Skipped(place=str(path), why=f"is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    kind = _PAGES[_suffix(path)]
    if kind == "html":
        page = html_page(data)
        links = tuple((words, _beside(name, target)) for words, target in page.links)
        return Document(id=name, title=page.title or name, text=page.text, links=links)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Skipped(place=str(path), why=f"is not UTF-8 at byte {error.start}")
    if kind == "text":
        return Document(id=name, title=name, text=text)
    heading = _HEADING.search(text)
    links = tuple((words, _beside(name, target)) for words, target in _LINK.findall(text))
    return Document(id=name, title=heading[1] if heading else name, text=text, links=links)


def _beside(name: str, target: str) -> str:
    """A relative link as the id of the document it leads to; an absolute one as it is."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|#", target):
        return target
    path = target.partition("#")[0].partition("?")[0]
    joined = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
    return target if joined.startswith("..") else joined.lstrip("/")


def _sound(text: str) -> str:
    """Without lone surrogates, which JSON can name and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
