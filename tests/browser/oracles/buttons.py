"""Pages that are solved by clicks alone."""

from __future__ import annotations

import re

from tests.browser.oracles.view import Play, View, solves


def click(*nodes: object) -> str:
    return "\n".join(f"click('{node.id}')" for node in nodes)  # type: ignore[attr-defined]


@solves("click-test")
def click_test(view: View) -> Play:
    yield click(view.one("button"))


@solves("click-test-2", "click-test-transfer")
def click_test_2(view: View) -> Play:
    yield click(view.one("button", text=view.goal.split()[-1].rstrip(".")))


@solves("click-button-sequence")
def sequence(view: View) -> Play:
    yield click(view.one("button", text="ONE"))
    yield click(view.one("button", text="TWO"))


@solves("button-delay")
def delayed(view: View) -> Play:
    yield click(view.one("button", text="ONE"))
    seconds = re.search(r"wait (\d+) second", view.goal)
    assert seconds
    yield f"wait({int(seconds[1]) * 1000})"
    yield click(view.one("button", text="TWO"))


@solves("click-button", "unicode-test")
def button(view: View) -> Play:
    yield click(next(it for it in view.all("button") if it.text == view.quoted[0]))


@solves("click-link")
def link(view: View) -> Play:
    yield click(view.one(cls="alink", text=view.quoted[0]))


@solves("click-dialog")
def dialog(view: View) -> Play:
    yield click(view.one("button", cls="ui-dialog-titlebar-close"))


@solves("click-dialog-2")
def dialog_button(view: View) -> Play:
    wanted = view.quoted[0]
    yield click(
        view.one("button", cls="ui-dialog-titlebar-close") if wanted == "x" else view.one("button", text=wanted)
    )


@solves("click-tab")
def tab(view: View) -> Play:
    yield click(view.one("a", text=view.goal.removeprefix("Click on ").rstrip(".")))


@solves("click-tab-2", "click-tab-2-easy", "click-tab-2-medium")
def tabs(view: View) -> Play:
    for entry in [it for it in view.all("a") if it.text.startswith("Tab #")]:
        view = yield click(entry)
        found = view.all(cls="alink", text=view.quoted[0])
        if found:
            yield click(found[0])
            return


@solves("click-collapsible", "click-collapsible-nodelay")
def collapsible(view: View) -> Play:
    view = yield click(view.one("h3"))
    yield view.submit


@solves("click-collapsible-2", "click-collapsible-2-nodelay")
def sections(view: View) -> Play:
    for index in range(len(view.all("h3"))):
        view = yield click(view.all("h3")[index])
        found = [it for it in view.all(cls="alink", text=view.quoted[0]) if it.box[3] > 2]
        if found:
            yield click(found[0])
            return


@solves("click-widget")
def widget(view: View) -> Play:
    kinds = {
        "button": ("button", ""),
        "checkbox": ("input", "checkbox"),
        "radio": ("input", "radio"),
        "text": ("input", "text"),
        "textarea": ("textarea", ""),
    }
    tag, kind = kinds[view.quoted[0]]
    yield click(next(it for it in view.all(tag) if not kind or it.attributes.get("type", "text") == kind))


@solves("focus-text")
def focus(view: View) -> Play:
    yield click(view.one("input"))


@solves("focus-text-2")
def focus_nth(view: View) -> Play:
    number = re.search(r"(\d+)", view.goal)
    assert number
    yield click(view.all("input")[int(number[1]) - 1])


@solves("grid-coordinate")
def grid(view: View) -> Play:
    at = re.search(r"\((-?\d),(-?\d)\)", view.goal)
    assert at
    spots = [it for it in view.all("circle") if it.box[2] > 0]
    columns = sorted({round(it.middle[0]) for it in spots})
    rows = sorted({round(it.middle[1]) for it in spots})
    x, y = columns[int(at[1]) + 2], rows[2 - int(at[2])]
    yield f"mouse_click({x}, {y})"


@solves("identify-shape")
def identify(view: View) -> Play:
    shape = view.one("svg").children[0]
    if shape.children and shape.tag == "g":
        shape = shape.children[0]
    corners = len(shape.attributes.get("points", "").split())
    if shape.tag == "polygon" and corners == 2:
        corners = len(shape.attributes["points"].replace(",", " ").split()) // 2
    names = {"circle": "Circle", "text": "Number" if shape.text.isdigit() else "Letter"}
    name = names.get(shape.tag) or ("Rectangle" if shape.tag == "rect" or corners == 4 else "Triangle")
    yield click(view.one("button", text=name))


@solves("guess-number")
def guess(view: View) -> Play:
    low, high = 0, 9
    while low <= high:
        middle = (low + high) // 2
        field = view.one("input")
        view = yield f"fill('{field.id}', '{middle}')\n{view.submit}"
        said = view.root.text
        if f"lower than {middle}" in said:
            high = middle - 1
        elif f"higher than {middle}" in said:
            low = middle + 1
        else:
            return


@solves("generate-number")
def generate(view: View) -> Play:
    goal = view.goal
    for _ in range(60):
        view = yield click(view.one("button", text="Generate"))
        said = view.one(name="display-number").text
        if not said.strip().lstrip("-").isdigit():
            continue
        number = int(said)
        bound = re.search(r"(less|greater) than (\d+)", goal)
        good = (
            ("even" in goal and number % 2 == 0)
            or ("odd" in goal and number % 2 == 1)
            or (bound is not None and (number < int(bound[2])) == (bound[1] == "less") and number != int(bound[2]))
        )
        if good:
            yield view.submit
            return
