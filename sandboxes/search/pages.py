"""HTML and plain text as pages of text with links; pages are shown in parts and searched in.

HTML of an operator's own corpus is read in this process, HTML from the web in a process that has limits
(`web_page`): some inputs of a few kilobytes keep any conforming parser busy for minutes.
"""

from __future__ import annotations

import asyncio
import codecs
import itertools
import json
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agenthub.errors import HostFault, UserError

__all__ = ["MAX_DEPTH", "MAX_FOUND", "MAX_LINKS", "Found", "Page", "decoded", "find", "html_page", "part", "web_page"]

MAX_DEPTH = 1500
"""Elements inside each other; a page with more is refused before it is parsed."""
MAX_LINKS = 2000
"""Of one document; those after them are left out."""
MAX_FOUND = 10_000
PARSE_CPU_S, PARSE_BYTES, PARSE_WALL_S = 5, 1 << 30, 15.0
_OPTIONAL = "p|li|dt|dd|tr|td|th|thead|tbody|tfoot|option|optgroup|colgroup|rt|rp"
_VOID = "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr"
_TAG = re.compile(rf"<(/?)(?!(?:{_OPTIONAL}|{_VOID})\b)[a-zA-Z][^>]*?(/?)>")
_UNSEEN = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "object", "head", "math", "canvas"})
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body br caption dd details div dl dt fieldset figcaption figure footer form "
        "h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section summary table tbody td tfoot th thead tr ul",
    )
)
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])|opacity\s*:\s*0(?![.\d])", re.IGNORECASE
)
_META = re.compile(rb"<meta[^>]{0,300}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_PROGRAM = (
    "import json,sys\n"
    "sys.path[:0]=json.loads(sys.argv[1])\n"
    "from agenthub.sandboxes.search.pages import _child\n"
    "_child()\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as text."""

    title: str
    text: str
    links: tuple[tuple[str, str], ...] = ()
    """(words, target) of each link, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One place where a pattern stands in a page."""

    start: int
    """Offset in the page's text."""
    excerpt: str


def html_page(data: bytes, charset: str = "") -> Page:
    """The page of HTML. What a reader does not see (scripts, hidden elements) is left out.

    Raises:
        UserError: elements are nested more than `MAX_DEPTH` deep.
    """
    from selectolax.lexbor import LexborHTMLParser

    text = decoded(data, charset)
    _check_depth(text)
    tree = LexborHTMLParser(text)
    title = tree.css_first("title")
    pieces: list[str] = []
    links: list[tuple[str, str]] = []
    if tree.body is not None:
        _walk(tree.body, pieces, links)
    name = " ".join(title.text().split()) if title is not None else ""
    return Page(title=name, text=_tidy("".join(pieces)), links=tuple(links[:MAX_LINKS]))


def decoded(data: bytes, charset: str = "") -> str:
    """Bytes as text: by their mark, the charset that was told or that HTML names, else UTF-8; never fails."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    declared = _META.search(data[:2048])
    for name in (charset, declared[1].decode("ascii") if declared else "", "utf-8-sig"):
        try:
            return data.decode(name) if name else data.decode("utf-8-sig")
        except (LookupError, ValueError):
            continue
    return data.decode("utf-8", "replace")


async def web_page(data: bytes, charset: str = "") -> Page:
    """`html_page` in a process with limits of time and memory.

    Raises:
        UserError: the page cannot be read within them.
        HostFault: the process could not be started.
    """
    paths = json.dumps([path for path in sys.path if path])
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            _PROGRAM,
            paths,
            charset,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
        )
    except OSError as error:
        raise HostFault(f"no process for reading a page: {error}") from error
    try:
        async with asyncio.timeout(PARSE_WALL_S):
            said, _ = await process.communicate(data)
    except TimeoutError:
        raise UserError(f"the page could not be read in {PARSE_WALL_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or not said:
        raise UserError("the page could not be read: its HTML takes too much time or memory")
    row = json.loads(said)
    if "error" in row:
        raise UserError(str(row["error"]))
    return Page(title=row["title"], text=row["text"], links=tuple((words, target) for words, target in row["links"]))


def part(text: str, page: int, chars: int) -> tuple[str, int, int]:
    """Part `page` (from 1) of a text in parts of `chars`, how many there are, and the offset where it starts.

    Raises:
        UserError: there is no such part.
    """
    pages = max(1, -(-len(text) // chars))
    if not 1 <= page <= pages:
        raise UserError(f"page {page} does not exist: the document has {pages} page{'s' if pages > 1 else ''}")
    start = (page - 1) * chars
    return text[start : start + chars], pages, start


def find(text: str, pattern: str, *, most: int = 10, around: int = 200) -> tuple[list[Found], int]:
    """Places where `pattern` stands, without regard to case; excerpts of the first `most`, and how many there are, at
    most `MAX_FOUND`."""
    matches = re.finditer(re.escape(pattern), text, re.IGNORECASE)
    places = [match.start() for match in itertools.islice(matches, MAX_FOUND)]
    shown = []
    for start in places[:most]:
        low, high = max(0, start - around), min(len(text), start + len(pattern) + around)
        shown.append(Found(start=start, excerpt=text[low:high]))
    return shown, len(places)


def _check_depth(text: str) -> None:
    depth = deepest = 0
    for tag in _TAG.finditer(text):
        depth = max(0, depth - 1) if tag[1] else depth + (not tag[2])
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise UserError(f"the page's elements are nested more than {MAX_DEPTH} deep")


def _walk(root: Any, pieces: list[str], links: list[tuple[str, str]]) -> None:
    """Collect text and links below `root` without recursion."""
    stack: list[tuple[Any, bool]] = [(root, True)]
    open_links: list[tuple[str, int]] = []
    while stack:
        node, entering = stack.pop()
        tag = node.tag
        if not entering:
            if tag == "a":
                target, first = open_links.pop()
                links.append((" ".join("".join(pieces[first:]).split())[:200], target))
            if tag in _BLOCKS:
                pieces.append("\n")
            continue
        if tag == "-text":
            words = node.text_content or ""
            pieces.append(words if _preformatted(node) else re.sub(r"\s+", " ", words))
            continue
        if tag.startswith("-") or tag in _UNSEEN or _hidden(node):
            continue
        if tag in _BLOCKS:
            pieces.append("\n\n" if tag in ("p", "h1", "h2", "h3", "h4", "h5", "h6") else "\n")
        if tag == "a":
            target = node.attributes.get("href")
            if target:
                open_links.append((target.strip(), len(pieces)))
                stack.append((node, False))
        elif tag in _BLOCKS:
            stack.append((node, False))
        stack.extend(reversed([(child, True) for child in _children(node)]))


def _children(node: Any) -> Iterator[Any]:
    child = node.first_child
    while child is not None:
        yield child
        child = child.next


def _preformatted(node: Any) -> bool:
    above = node.parent
    for _ in range(4):
        if above is None:
            return False
        if above.tag in ("pre", "textarea"):
            return True
        above = above.parent
    return False


def _hidden(node: Any) -> bool:
    attributes = node.attributes
    if not attributes:
        return False
    style = attributes.get("style") or ""
    return "hidden" in attributes or attributes.get("aria-hidden") == "true" or bool(_HIDDEN.search(style))


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _child() -> None:
    """The process of `web_page`: HTML on standard input, the page as JSON on standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (PARSE_CPU_S, PARSE_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (PARSE_BYTES, PARSE_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        page = html_page(sys.stdin.buffer.read(), sys.argv[2])
        row: dict[str, Any] = {"title": page.title, "text": page.text, "links": page.links}
    except UserError as error:
        row = {"error": str(error)}
    sys.stdout.write(json.dumps(row))
