"""Pages on which something has to be read first."""

from __future__ import annotations

import re

from tests.browser.oracles.forms import fill
from tests.browser.oracles.view import Play, View, solves


@solves("find-word")
def word(view: View) -> Play:
    number = int(re.search(r"the (\d+)", view.goal)[1])  # type: ignore[index]
    words = view.one("p").text.split() if view.all("p") else view.one(name="area").text.split()
    yield f"{fill(view.one('input'), re.sub(r'[^A-Za-z]', '', words[number - 1]))}\n{view.submit}"


@solves("read-table")
def table(view: View) -> Play:
    wanted = re.search(r"value of (.*) into", view.goal)[1]  # type: ignore[index]
    for row in view.all("tr"):
        cells = row.all("td") or row.all("th")
        if cells and cells[0].text == wanted:
            yield f"{fill(view.one('input'), cells[-1].text)}\n{view.submit}"
            return


@solves("read-table-2")
def table_2(view: View) -> Play:
    values = {}
    for row in view.all("tr"):
        cells = [it.text for it in row.all() if it.tag in ("td", "th")]
        if len(cells) >= 2:
            values[cells[0].rstrip(":")] = cells[-1]
    lines = []
    labels = [it.text.rstrip(":").strip() for it in view.all("label")]
    for label, field in zip(labels, view.all("input"), strict=False):
        lines.append(fill(field, values[label]))
    yield "\n".join(lines) + f"\n{view.submit}"


@solves("scroll-text-2")
def scroll(view: View) -> Play:
    x, y = view.one("textarea").middle
    far = -20000 if "top" in view.goal else 20000
    view = yield f"scroll(0, {far}, {x:.0f}, {y:.0f})"
    yield view.submit


@solves("copy-paste")
def copy(view: View) -> Play:
    area, field = view.one("textarea"), view.one("input")
    yield (
        f"click('{area.id}')\nkeyboard_press('Control+a')\nkeyboard_press('Control+c')\n"
        f"click('{field.id}')\nkeyboard_press('Control+v')\n{view.submit}"
    )


@solves("copy-paste-2")
def copy_nth(view: View) -> Play:
    number = int(re.search(r"the (\d)", view.goal)[1])  # type: ignore[index]
    area = view.all("textarea")[number - 1]
    field = next(it for it in view.all("input") if it.attributes.get("type") == "text")
    yield (
        f"click('{area.id}')\nkeyboard_press('Control+a')\nkeyboard_press('Control+c')\n"
        f"click('{field.id}')\nkeyboard_press('Control+v')\n{view.submit}"
    )


@solves("find-greatest")
def greatest(view: View) -> Play:
    best = (-1, -1)
    for index in range(len(view.all(cls="card"))):
        view = yield f"click('{view.all(cls='card')[index].id}')"
        shown = [int(it) for it in re.findall(r"\d+", view.all(cls="card")[index].text)]
        best = max(best, (max(shown, default=-1), index))
    view = yield f"click('{view.all(cls='card')[best[1]].id}')"
    yield view.submit


@solves("search-engine")
def engine(view: View) -> Play:
    number = int(re.search(r"the (\d+)", view.goal)[1])  # type: ignore[index]
    view = yield f"{fill(view.one('input'), view.quoted[0])}\nclick('{view.one('button').id}')"
    per_page = len(view.all(cls="search-title")) or 3
    page, place = divmod(number - 1, per_page)
    for _ in range(page):
        following = [it for it in view.all("a") if it.text.strip() == ">"]
        view = yield f"click('{following[0].id}')"
    yield f"click('{view.all(cls='search-title')[place].id}')"


@solves("navigate-tree")
def tree(view: View) -> Play:
    wanted, opened = view.quoted[0], set()
    for _ in range(20):
        spans = [it for it in view.all("span") if ("folder" in it.classes or "file" in it.classes) and it.box[2] > 0]
        found = [it for it in spans if it.text.strip() == wanted]
        if found:
            yield f"click('{found[0].id}')"
            return
        closed = [it for it in spans if "folder" in it.classes and it.id not in opened]
        opened.add(closed[0].id)
        view = yield f"click('{closed[0].id}')"


@solves("click-menu")
def menu(view: View) -> Play:
    path = re.sub(r"^Select ", "", view.goal).split(">")
    for depth, name in enumerate(path):
        items = [it for it in view.all(cls="ui-menu-item-wrapper") if it.text.strip() == name and it.box[2] > 0]
        x, y = items[-1].middle
        view = (
            yield f"click('{items[-1].id}')" if depth == len(path) - 1 else f"mouse_move({x:.0f}, {y:.0f})\nwait(500)"
        )


@solves("odd-or-even")
def parity(view: View) -> Play:
    lines = []
    for row in [it for it in view.all(cls="row")]:
        number = int(re.search(r"-?\d+", row.text)[0])  # type: ignore[index]
        lines.append(f"click('{row.one('button', text='odd' if number % 2 else 'even').id}')")
    view = yield "\n".join(lines)
    yield view.submit


@solves("social-media-all", "social-media-some")
def posts(view: View) -> Play:
    user = re.search(r"@\w+", view.goal)[0]  # type: ignore[index]
    kind = view.quoted[0].casefold()
    found = [it for it in view.all("div", cls="media") if it.one(cls="username").text == user]
    number = re.search(r"on (\d+) post", view.goal)
    for post in found[: int(number[1]) if number else len(found)]:
        view = yield f"click('{post.one(cls=kind).id}')"
    yield view.submit
