"""What a page looks like in text: its document with element ids, read from the browser without a script of ours."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Element", "Ids", "Snapshot", "axtree", "pruned", "snapshot"]

STYLES = ("color", "background-color", "visibility", "opacity")
_SKIPPED = frozenset(("SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "LINK", "META", "HEAD", "TITLE", "BASE"))
_INTERACTIVE = frozenset(("A", "BUTTON", "INPUT", "SELECT", "TEXTAREA", "OPTION", "LABEL", "SUMMARY"))
_WHOLE = frozenset(("HTML", "BODY"))
_ELEMENT, _TEXT, _DOCUMENT = 1, 3, 9
_KEPT = """
id class type name value href title alt placeholder role for checked disabled selected readonly multiple min max
fill stroke cx cy r rx ry x y x1 y1 x2 y2 width height points d transform text-anchor font-size style src
"""
_KEPT_ATTRIBUTES = frozenset(_KEPT.split())
_MOST_ATTRIBUTE = 300


class Ids:
    """The ids by which elements are named: small numbers, given in the order in which they are first seen."""

    def __init__(self) -> None:
        self._of: dict[int, str] = {}
        self._back: dict[str, int] = {}

    def of(self, backend: int) -> str:
        """The id of a node of the browser."""
        found = self._of.get(backend)
        if found is None:
            found = self._of[backend] = str(len(self._of) + 1)
            self._back[found] = backend
        return found

    def node(self, name: str) -> int | None:
        """The browser's node of an id; None where it was never shown."""
        return self._back.get(name)


@dataclass(slots=True, kw_only=True)
class Element:
    """One element of the document."""

    id: str
    backend: int
    tag: str
    """In lower case."""
    attributes: Mapping[str, str]
    box: tuple[float, float, float, float] | None
    """x, y, width, height in pixels of the window; None where it is not laid out."""
    clickable: bool
    styles: Mapping[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)
    """Elements and pieces of text, in order."""

    @property
    def text(self) -> str:
        """All text below it, as it stands in the document."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self) -> Iterator[Element]:
        """Itself and every element below."""
        waiting: list[Element] = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting += [child for child in reversed(element.children) if isinstance(child, Element)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The document in front."""

    url: str
    title: str
    root: Element
    by_backend: Mapping[int, Element]
    parents: Mapping[int, int]
    """Browser's node to that of its parent element, text nodes included."""


def snapshot(taken: Mapping[str, Any], ids: Ids) -> Snapshot:
    """The document of a `DOMSnapshot.captureSnapshot` with STYLES; frames follow their frame element."""
    strings: Sequence[str] = taken["strings"]
    documents: Sequence[Mapping[str, Any]] = taken["documents"]
    by_backend: dict[int, Element] = {}
    parents: dict[int, int] = {}
    reader = _Reader(strings, documents, ids, by_backend, parents)
    root = reader.document(0, (0.0, 0.0))
    first = documents[0]
    url, title = (strings[first[key]] if first[key] >= 0 else "" for key in ("documentURL", "title"))
    return Snapshot(url=url, title=title, root=root, by_backend=by_backend, parents=parents)


@dataclass(frozen=True, slots=True)
class _Reader:
    strings: Sequence[str]
    documents: Sequence[Mapping[str, Any]]
    ids: Ids
    by_backend: dict[int, Element]
    parents: dict[int, int]

    def document(self, index: int, offset: tuple[float, float]) -> Element:
        given = self.documents[index]
        nodes, layout = given["nodes"], given["layout"]
        shift = (offset[0] - given.get("scrollOffsetX", 0), offset[1] - given.get("scrollOffsetY", 0))
        rows = {node: row for row, node in reversed(list(enumerate(layout["nodeIndex"])))}
        clickable = frozenset(nodes.get("isClickable", {}).get("index", ()))
        values = self._rare(nodes, "inputValue") | self._rare(nodes, "textValue")
        checked = frozenset(nodes.get("inputChecked", {}).get("index", ()))
        selected = frozenset(nodes.get("optionSelected", {}).get("index", ()))
        frames = dict(zip(*_pair(nodes.get("contentDocumentIndex")), strict=True))
        made: dict[int, Element] = {}
        root = Element(id="", backend=0, tag="#document", attributes={}, box=None, clickable=False)
        for node, kind in enumerate(nodes["nodeType"]):
            parent = made.get(nodes["parentIndex"][node])
            backend = nodes["backendNodeId"][node]
            if parent is not None and parent.backend:
                self.parents[backend] = parent.backend
            if kind == _TEXT and parent is not None:
                value = nodes["nodeValue"][node]
                if value >= 0 and self.strings[value].strip():
                    parent.children.append(self.strings[value])
                continue
            if kind == _DOCUMENT:
                made[node] = root
                continue
            if kind != _ELEMENT or parent is None:
                continue
            name = self.strings[nodes["nodeName"][node]]
            if name.upper() in _SKIPPED or name.startswith("::"):
                continue
            attributes = self._attributes(nodes["attributes"][node])
            if node in values:
                attributes["value"] = values[node]
            # What is checked now, whatever the page's source says.
            attributes.pop("checked", None)
            if node in checked:
                attributes["checked"] = ""
            if node in selected:
                attributes["selected"] = ""
            row = rows.get(node)
            x, y, width, height = layout["bounds"][row] if row is not None else (0, 0, 0, 0)
            element = made[node] = Element(
                id=self.ids.of(backend),
                backend=backend,
                tag=name.lower(),
                attributes=attributes,
                box=(x + shift[0], y + shift[1], width, height) if row is not None else None,
                clickable=(node in clickable and name.upper() not in _WHOLE) or name.upper() in _INTERACTIVE,
                styles=self._styles(layout["styles"][row]) if row is not None else {},
            )
            self.by_backend[backend] = element
            parent.children.append(element)
            if node in frames and element.box is not None and frames[node] < len(self.documents):
                element.children.append(self.document(frames[node], element.box[:2]))
        return root

    def _attributes(self, row: Sequence[int]) -> dict[str, str]:
        pairs = zip(row[0::2], row[1::2], strict=True)
        return {self.strings[name]: self.strings[value] if value >= 0 else "" for name, value in pairs}

    def _styles(self, row: Sequence[int]) -> dict[str, str]:
        return {name: self.strings[value] for name, value in zip(STYLES, row, strict=False) if value >= 0}

    def _rare(self, nodes: Mapping[str, Any], key: str) -> dict[int, str]:
        pairs = zip(*_pair(nodes.get(key)), strict=True)
        return {index: self.strings[value] if value >= 0 else "" for index, value in pairs}


def _pair(rare: Mapping[str, Any] | None) -> tuple[Sequence[int], Sequence[int]]:
    return (rare["index"], rare["value"]) if rare else ((), ())


def pruned(root: Element, *, boxes: bool = True) -> str:
    """The document as HTML: what is laid out, with the id of each element and the attributes that matter."""
    lines: list[str] = []
    waiting: list[tuple[Element | str, int]] = [(child, 0) for child in reversed(root.children)]
    while waiting:
        child, depth = waiting.pop()
        pad = " " * depth
        if isinstance(child, str):
            lines.append(pad + html.escape(" ".join(child.split()), quote=False))
            continue
        inside = [it for it in child.children if isinstance(it, str) or it.box is not None or it.tag == "option"]
        if child.tag == "#document":
            waiting += [(it, depth) for it in reversed(inside)]
            continue
        opening = _opening(child, boxes=boxes)
        if len(inside) == 1 and isinstance(inside[0], str):
            lines.append(f"{pad}<{opening}>{html.escape(' '.join(inside[0].split()), quote=False)}</{child.tag}>")
            continue
        lines.append(f"{pad}<{opening}>" if inside else f"{pad}<{opening}/>")
        waiting += [(it, depth + 1) for it in reversed(inside)]
    return "\n".join(lines)


def _opening(element: Element, *, boxes: bool) -> str:
    shown = [f'{element.tag} eid="{element.id}"']
    for name, value in element.attributes.items():
        if name in _KEPT_ATTRIBUTES or name.startswith("aria-"):
            cut = value if len(value) <= _MOST_ATTRIBUTE else value[:_MOST_ATTRIBUTE] + "..."
            shown.append(f'{name}="{html.escape(cut)}"' if value else name)
    if element.clickable:
        shown.append("clickable")
    if boxes and element.box is not None:
        shown.append('box="{}"'.format(",".join(f"{value:.4g}" for value in element.box)))
    return " ".join(shown)


_QUIET = frozenset(("none", "generic", "InlineTextBox", "LineBreak", "ListMarker", "LayoutTable", "Section"))
_STATES = ("focused", "disabled", "checked", "pressed", "selected", "expanded", "required", "invalid", "readonly")


def axtree(nodes: Sequence[Mapping[str, Any]], page: Snapshot, ids: Ids) -> tuple[str, str]:
    """The tree of `Accessibility.getFullAXTree`, a line a node, and the line of the node in focus.

    Nodes that say nothing give way to their children, unless they can be clicked.
    """
    by_id = {node["nodeId"]: node for node in nodes}
    roots = [node for node in nodes if "parentId" not in node or node["parentId"] not in by_id]
    lines: list[str] = []
    focus = ""
    waiting: list[tuple[Mapping[str, Any], int, str]] = [(node, 0, "") for node in reversed(roots)]
    while waiting:
        node, depth, above = waiting.pop()
        role, name = _text(node, "role"), _text(node, "name")
        element = page.by_backend.get(node.get("backendDOMNodeId", 0))
        clickable = element is not None and element.clickable
        silent = node.get("ignored") or role in _QUIET or (role == "StaticText" and name.strip() in ("", above.strip()))
        inside = depth
        if role == "InlineTextBox":
            continue
        if not silent or (clickable and element is not None and element.box is not None):
            line = _line("generic" if node.get("ignored") else role, name, node, element, clickable)
            lines.append("  " * depth + line)
            if "focused" in line.rpartition("'")[2]:
                focus = line
            inside = depth + 1
        children = [by_id[child] for child in node.get("childIds", ()) if child in by_id]
        waiting += [(child, inside, name if not silent else above) for child in reversed(children)]
    return "\n".join(lines), focus


def _text(node: Mapping[str, Any], key: str) -> str:
    return str(node.get(key, {}).get("value", ""))


def _line(role: str, name: str, node: Mapping[str, Any], element: Element | None, clickable: bool) -> str:
    shown = f"[{element.id}] " if element is not None and role != "StaticText" else ""
    shown += f"{role} {' '.join(name.split())!r}"
    if (value := _text(node, "value")) and value != name:
        shown += f", value={value!r}"
    for row in node.get("properties", ()):
        state, said = row["name"], row["value"].get("value")
        if state in _STATES and said not in (False, "false", None):
            shown += f", {state}" if said in (True, "true") else f", {state}={said}"
        elif state in ("checked", "expanded"):
            shown += f", {state}=false"
    return shown + (", clickable" if clickable else "")
