"""Pages with fields to fill in."""

from __future__ import annotations

import re

from tests.browser.oracles.view import Node, Play, View, solves


def fill(node: Node, value: str) -> str:
    return f"fill('{node.id}', {value!r})"


@solves("enter-text", "enter-text-dynamic")
def enter(view: View) -> Play:
    yield f"{fill(view.one('input'), view.quoted[0])}\n{view.submit}"


@solves("enter-text-2")
def enter_case(view: View) -> Play:
    text = view.quoted[0]
    yield f"{fill(view.one('input'), text.upper() if 'upper' in view.goal else text.lower())}\n{view.submit}"


@solves("enter-password")
def password(view: View) -> Play:
    yield "\n".join(fill(node, view.quoted[0]) for node in view.all("input")) + f"\n{view.submit}"


@solves("login-user", "login-user-popup")
def login(view: View) -> Play:
    name, secret = view.quoted
    for wanted, value in (("username", name), ("password", secret)):
        for _ in range(4):
            cancel = [it for it in view.all(name="popup-cancel") if it.box[2] > 0]
            if cancel:
                view = yield f"click('{cancel[0].id}')"
                continue
            view = yield fill(view.one("input", name=wanted), value)
            if view.one("input", name=wanted).attributes.get("value") not in (None, ""):
                break
    cancel = [it for it in view.all(name="popup-cancel") if it.box[2] > 0]
    if cancel:
        view = yield f"click('{cancel[0].id}')"
    yield f"click('{view.one('button', name='subbtn').id}')"


@solves("enter-date")
def date(view: View) -> Play:
    month, day, year = re.search(r"(\d\d)/(\d\d)/(\d{4})", view.goal).groups()  # type: ignore[union-attr]
    field = view.one("input")
    value = f"{year}-{month}-{day}" if field.attributes.get("type") == "date" else f"{month}/{day}/{year}"
    yield f"{fill(field, value)}\n{view.submit}"


@solves("enter-time")
def time(view: View) -> Play:
    hour, minute, half = re.search(r"(\d+):(\d\d) ([AP]M)", view.goal).groups()  # type: ignore[union-attr]
    clock = int(hour) % 12 + (12 if half == "PM" else 0)
    yield f"{fill(view.one('input'), f'{clock:02d}:{minute}')}\n{view.submit}"


@solves("click-checkboxes", "click-checkboxes-transfer", "click-checkboxes-large")
def checkboxes(view: View) -> Play:
    wanted = re.sub(r"^Select (.*) and click Submit\.$", r"\1", view.goal).split(", ")
    for label in view.all("label"):
        if label.text.strip() in wanted:
            view = yield f"click('{label.one('input').id}')"
    yield view.submit


@solves("click-option")
def option(view: View) -> Play:
    wanted = re.sub(r"^Select (.*) and click Submit\.$", r"\1", view.goal)
    label = next(it for it in view.all("label") if it.text.strip() == wanted)
    yield f"click('{label.one('input').id}')\n{view.submit}"


@solves("choose-list")
def choose(view: View) -> Play:
    wanted = re.sub(r"^Select (.*) from the list and click Submit\.$", r"\1", view.goal)
    yield f"select_option('{view.one('select').id}', {wanted!r})\n{view.submit}"


@solves("text-transform")
def transform(view: View) -> Play:
    yield f"{fill(view.one('input'), ''.join(it.text for it in view.one(name='captcha').all('span')))}\n{view.submit}"


@solves("simple-arithmetic")
def arithmetic(view: View) -> Play:
    text = view.one(name="math-problem").text.replace("x", "*").replace("×", "*").replace("÷", "/")
    left, sign, right = re.search(r"(-?\d+)\s*([-+*/])\s*(-?\d+)", text).groups()  # type: ignore[union-attr]
    a, b = int(left), int(right)
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign]
    yield f"{fill(view.one('input'), str(value))}\n{view.submit}"


@solves("simple-algebra")
def algebra(view: View) -> Play:
    text = view.one(name="math-problem").text.replace(" ", "")
    left, total = text.split("=")[:2]
    match = re.fullmatch(r"(-?\w+)([-+*])(-?\w+)", left)
    assert match, text
    a, sign, b = match.groups()
    goal = int(re.search(r"-?\d+", total)[0])  # type: ignore[index]
    if a == "x":
        value = goal - int(b) if sign == "+" else goal + int(b) if sign == "-" else goal // int(b)
    else:
        value = goal - int(a) if sign == "+" else int(a) - goal if sign == "-" else goal // int(a)
    yield f"{fill(view.one('input'), str(value))}\n{view.submit}"


@solves("visual-addition")
def addition(view: View) -> Play:
    yield f"{fill(view.one('input'), str(len(view.all(cls='addition-block'))))}\n{view.submit}"


@solves("use-spinner")
def spinner(view: View) -> Play:
    wanted = int(re.search(r"Select (-?\d+)", view.goal)[1])  # type: ignore[index]
    field = view.one("input")
    key = "ArrowUp" if wanted > 0 else "ArrowDown"
    presses = "\n".join(f"keyboard_press('{key}')" for _ in range(abs(wanted)))
    yield f"click('{field.id}')\n{presses}\n{view.submit}" if wanted else view.submit


@solves("use-slider")
def slider(view: View) -> Play:
    wanted = int(re.search(r"Select (-?\d+)", view.goal)[1])  # type: ignore[index]
    view = yield f"click('{view.one(cls='ui-slider-handle').id}')"
    for _ in range(40):
        here = int(view.one(name="val").text)
        if here == wanted:
            break
        key = "ArrowRight" if here < wanted else "ArrowLeft"
        view = yield "\n".join(f"keyboard_press('{key}')" for _ in range(min(30, abs(wanted - here))))
    yield view.submit


@solves("use-slider-2")
def sliders(view: View) -> Play:
    wanted = [int(it) for it in re.search(r"\[(.*)\]", view.goal)[1].split(",")]  # type: ignore[index]
    for index, value in enumerate(wanted):
        handle = view.all(cls="ui-slider-handle")[index]
        view = yield f"click('{handle.id}')\nkeyboard_press('Home')"
        if value:
            view = yield "\n".join("keyboard_press('ArrowRight')" for _ in range(value))
    yield view.submit


@solves("use-autocomplete", "use-autocomplete-nodelay")
def autocomplete(view: View) -> Play:
    start, *rest = view.quoted
    end = rest[0] if rest else ""
    field = view.one("input")
    view = yield f"click('{field.id}')\nkeyboard_type({start!r})"
    view = yield "wait(800)"
    for node in view.all("li", cls="ui-menu-item"):
        if node.text.casefold().startswith(start.casefold()) and node.text.casefold().endswith(end.casefold()):
            view = yield f"click('{node.id}')"
            break
    yield view.submit


@solves("form-sequence")
def sequence(view: View) -> Play:
    wanted = int(re.search(r"Select (-?\d+)", view.goal)[1])  # type: ignore[index]
    box = int(re.search(r"the (\d)", view.goal)[1])  # type: ignore[index]
    view = yield f"click('{view.one(cls='ui-slider-handle').id}')"
    here = int(view.one(name="val").text)
    if here != wanted:
        key = "ArrowRight" if here < wanted else "ArrowLeft"
        view = yield "\n".join(f"keyboard_press('{key}')" for _ in range(abs(wanted - here)))
    boxes = [it for it in view.all("input") if it.attributes.get("type") == "checkbox"]
    yield f"click('{boxes[box - 1].id}')\n{view.submit}"


@solves("form-sequence-2")
def sequence_2(view: View) -> Play:
    radio, place = (int(it) for it in re.findall(r"(\d+)(?:st|nd|rd|th)", view.goal)[:2])
    radios = [it for it in view.all("input") if it.attributes.get("type") == "radio"]
    texts = [it for it in view.all("input") if it.attributes.get("type") in ("text", "number")]
    yield f"click('{radios[radio - 1].id}')\n{fill(texts[place - 1], view.quoted[0])}\n{view.submit}"
