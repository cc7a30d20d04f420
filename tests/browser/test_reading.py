"""Reading what a policy writes: total, and never evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.errors import UserError
from agenthub.records import frozen
from agenthub.sandboxes.browser.actions import VERBS, Action, from_calls, from_json, schema, written
from agenthub.sandboxes.browser.keys import combination, key_of
from agenthub.sandboxes.browser.settings import settings_of
from agenthub.sandboxes.browser.urls import allowed


@given(st.text(max_size=200))
def test_any_text_gives_actions_or_a_user_error(text: str) -> None:
    try:
        made = from_calls(text)
    except UserError:
        return
    assert all(action.verb in VERBS for action in made)


@given(st.dictionaries(st.text(max_size=10), st.one_of(st.none(), st.text(max_size=10), st.floats(), st.integers())))
def test_any_json_gives_an_action_or_a_user_error(row: dict[str, object]) -> None:
    for verb in (None, "click", "mouse_click", "noop", "scroll"):
        try:
            assert from_json({**row, "type": verb}).verb in VERBS
        except UserError:
            continue


@given(st.text(max_size=80))
def test_any_address_is_of_the_origin_or_refused(url: str) -> None:
    try:
        whole = allowed(url, "http://site.test")
    except UserError:
        return
    assert whole == "about:blank" or whole.startswith("http://site.test")


@given(st.text(max_size=12))
def test_any_key_is_known_or_refused(text: str) -> None:
    try:
        held, _ = combination(text)
    except UserError:
        return
    assert all(key.modifier for key in held)


def test_both_spellings_give_the_same_action() -> None:
    wanted = Action(verb="click", arguments=frozen({"id": "12", "button": "right", "modifiers": ("Shift",)}))
    assert from_calls("click('12', button='right', modifiers=['Shift'])") == (wanted,)
    assert from_calls("click(bid=12, button='right', modifiers=['Shift'])") == (wanted,)
    assert from_json({"type": "click", "id": 12, "button": "right", "modifiers": ["Shift"]}) == wanted


def test_several_calls_are_several_actions() -> None:
    made = from_calls("fill('3', 'a\\nb')\n# a remark\nkeyboard_press('Enter')")
    assert [it.verb for it in made] == ["fill", "keyboard_press"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("clik('1')", "did you mean 'click'"),
        ("click()", "argument id is missing"),
        ("click('1', colour='red')", "no argument 'colour'"),
        ("click('1', 'left', [], 4)", "takes 3 arguments"),
        ("click('1', id='2')", "given twice"),
        ("mouse_click('a', 1)", "x is 'a'; expected a number"),
        ("mouse_click(1e309, 1)", "expected a number"),
        ("click(open('/etc/passwd'))", "plain values"),
        ("a.click('1')", "no plain call"),
        ("click('1'", "cannot be read"),
        ("noop()\n" * 40, "at most 32"),
        ("click('" + "1" * 30_000 + "')", "at most 20000 characters"),
    ],
)
def test_what_is_wrong_is_said(code: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        from_calls(code)


def test_every_verb_is_in_the_schema_and_described() -> None:
    assert set(schema()["properties"]["type"]["enum"]) == set(VERBS)
    assert len(written().splitlines()) == len(VERBS)


def test_keys_have_their_numbers() -> None:
    held, key = combination("Control+Shift+a")
    assert [it.key for it in held] == ["Control", "Shift"]
    assert (key.code, key.number) == ("KeyA", 65)
    assert combination("+")[1].code == "Equal"
    assert combination("Control++")[1].key == "+"
    assert key_of("Return").key == "Enter"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"sit": "files"}, "did you mean 'site'"),
        ({"site": "web"}, "no browser site named 'web'"),
        ({"channels": ["picture"]}, "browser channel"),
        ({"seed": "1"}, "expected int"),
        ({"width": 0}, "1 to 4096 pixels"),
        ({"reset": "never"}, "browser reset"),
        ({"settle_ms": -1}, "settle_ms"),
    ],
)
def test_settings_that_do_not_fit_are_refused(params: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        settings_of(params)
