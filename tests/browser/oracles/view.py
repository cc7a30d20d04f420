"""What an oracle sees: the goal, and the document as the `dom` channel shows it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

__all__ = ["ORACLES", "Node", "Oracle", "Play", "View", "solves", "view_of"]

_TAG = re.compile(r'<([^\s/>]+)((?:\s+[^\s="/>]+(?:="[^"]*")?)*)\s*(/?)>')
_ATTRIBUTE = re.compile(r'([^\s="/>]+)(?:="([^"]*)")?')


@dataclass(slots=True)
class Node:
    """One element as it is shown."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    """Its text and that of everything below, in order."""

    @property
    def id(self) -> str:
        return self.attributes.get("eid", "")

    @property
    def text(self) -> str:
        return " ".join(self.pieces)

    @property
    def box(self) -> tuple[float, float, float, float]:
        x, y, width, height = (float(part) for part in self.attributes.get("box", "0,0,0,0").split(","))
        return x, y, width, height

    @property
    def middle(self) -> tuple[float, float]:
        x, y, width, height = self.box
        return x + width / 2, y + height / 2

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, tag: str = "", *, cls: str = "", name: str = "", text: str | None = None) -> list[Node]:
        """Everything below with this tag, class, id attribute and text."""
        return [
            node
            for node in self.walk()
            if node is not self
            and (not tag or node.tag == tag)
            and (not cls or cls in node.classes)
            and (not name or node.attributes.get("id") == name)
            and (text is None or node.text.strip().casefold() == text.strip().casefold())
        ]

    def one(self, tag: str = "", *, cls: str = "", name: str = "", text: str | None = None) -> Node:
        """The first of `all`."""
        found = self.all(tag, cls=cls, name=name, text=text)
        if not found:
            raise LookupError(f"nothing with {tag=} {cls=} {name=} {text=}")
        return found[0]


@dataclass(frozen=True, slots=True)
class View:
    """What the policy was shown last."""

    goal: str
    root: Node

    @property
    def quoted(self) -> list[str]:
        """What stands between quotes in the goal."""
        return re.findall(r'"([^"]*)"', self.goal)

    def all(self, tag: str = "", *, cls: str = "", name: str = "", text: str | None = None) -> list[Node]:
        return self.root.all(tag, cls=cls, name=name, text=text)

    def one(self, tag: str = "", *, cls: str = "", name: str = "", text: str | None = None) -> Node:
        return self.root.one(tag, cls=cls, name=name, text=text)

    @property
    def submit(self) -> str:
        """A click on the page's Submit."""
        found = [it for it in self.all("button") if it.text.casefold() in ("submit", "search", "ok")]
        return f"click('{(found or self.all(cls='secondary-action'))[0].id}')"


Play = Generator[str, View, None]
Oracle = Callable[[View], Play]
ORACLES: dict[str, Oracle] = {}


def solves(*pages: str) -> Callable[[Oracle], Oracle]:
    """Make an oracle the one of these pages."""

    def added(oracle: Oracle) -> Oracle:
        for page in pages:
            assert page not in ORACLES
            ORACLES[page] = oracle
        return oracle

    return added


def view_of(text: str) -> View:
    """The channels `goal` and `dom` of an observation."""
    goal = re.search(r"^goal: (.*)$", text, re.MULTILINE) or re.search(r"^goal:\n(.*?)\n(?=dom:)", text, re.S | re.M)
    return View(goal=goal[1] if goal else "", root=_tree(text.partition("dom:\n")[2]))


def _tree(text: str) -> Node:
    root = Node("#root")
    open_at: list[tuple[int, Node]] = [(-1, root)]
    for line in text.splitlines():
        body = line.lstrip(" ")
        depth = len(line) - len(body)
        if not body or (not open_at[1:] and not body.startswith("<")):
            continue
        while open_at[-1][0] >= depth:
            open_at.pop()
        match = _TAG.match(body)
        if match is None:
            if not body.startswith(("error:", "the episode")):
                _say(open_at, html.unescape(body))
            continue
        node = Node(match[1], {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(match[2])})
        open_at[-1][1].children.append(node)
        open_at.append((depth, node))
        inside = body[match.end() :].removesuffix(f"</{match[1]}>")
        if inside:
            _say(open_at, html.unescape(inside))
    return root


def _say(open_at: list[tuple[int, Node]], text: str) -> None:
    for _, node in open_at:
        node.pieces.append(text)
