"""What a desktop shows and takes: input, screens and frames, code without files, and whose fault an end is."""

from __future__ import annotations

from typing import Any

import pytest

from agenthub.errors import BoxLost, UserError
from agenthub.records import Call, ImageRef
from agenthub.sandboxes.desktop.actions import checked, events_of
from agenthub.sandboxes.desktop.screen import png_of
from agenthub.sandboxes.desktop.settings import settings_of
from tests.desktop.conftest import Open


def call(tool: str = "desktop", **arguments: Any) -> Call:
    return Call(id="1", tool=tool, arguments=arguments)


@pytest.mark.gui
async def test_code_has_the_input_and_nothing_else_of_the_desktop(opened: Open) -> None:
    session = await opened()
    typed = "import os\nkeyboard.type('zwei ')\nn = len(os.listdir('.'))\nkeyboard.hotkey('ctrl', 's')\nprint(n)"
    seen = await session.call(call("desktop_code", code=typed), timeout_s=60)
    assert not seen.failed and seen.text.startswith("0\n")
    again = await session.call(call("desktop_code", code="mouse.click(n, 5000)"), timeout_s=60)
    assert again.failed and "800 x 600" in again.text
    (note,) = await session.changes()
    assert note.data == b"zwei one\n"


@pytest.mark.gui
async def test_the_screens_between_two_actions_are_shown_where_they_are_asked_for(opened: Open) -> None:
    session = await opened(channels=["frames", "screenshot"], frames=3)
    seen = await session.call(call(action="hotkey", keys=["ctrl", "h"]), timeout_s=60)
    images = [part for part in seen.parts if isinstance(part, ImageRef)]
    assert 1 <= len(images) <= 4 and all((it.width, it.height) == (800, 600) for it in images)
    assert {it.sha256 for it in images} <= set(session.take_blobs())


@pytest.mark.gui
async def test_nothing_is_read_before_everything_is_stopped_and_nothing_can_be_done_after(opened: Open) -> None:
    session = await opened(evaluate=[{"do": "act", "actions": [{"action": "hotkey", "keys": ["ctrl", "s"]}]}])
    await session.call(call(action="type", text="x"), timeout_s=60)
    facts = await session.facts()
    assert any(row["program"].endswith("/mousepad") for row in facts["processes"])
    assert (await session.changes())[0].data == b"xone\n"
    with pytest.raises(BoxLost):
        await session.call(call(action="type", text="y"), timeout_s=60)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"action": "clik", "x": 1, "y": 1}, "did you mean 'click'"),
        ({"action": "click", "x": 800, "y": 1}, "800 x 600"),
        ({"action": "click", "x": True, "y": 1}, "integer"),
        ({"action": "click", "x": 1}, "needs y"),
        ({"action": "press", "key": "nokey"}, "no key"),
        ({"action": "type", "text": "x", "speed": 2}, "takes no 'speed'"),
        ({"action": "wait", "seconds": 1e9}, "expected 0 to 10"),
    ],
)
def test_what_is_no_action_is_refused_with_the_reason(row: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        checked(row, 800, 600)


def test_osworlds_names_are_the_same_actions() -> None:
    verb, given = checked({"action_type": "CLICK", "parameters": {"x": 3, "y": 4, "button": "right"}}, 800, 600)
    theirs = events_of(verb, given)
    assert theirs == events_of(*checked({"action": "right_click", "x": 3, "y": 4}, 800, 600))


@pytest.mark.parametrize("dump", [b"", bytes(100), b"\xff" * 3000])
def test_a_screen_that_a_program_wrote_into_is_no_screen(dump: bytes) -> None:
    with pytest.raises(ValueError, match="screen"):
        png_of(dump, 800, 600)


def test_a_step_that_no_procedure_has_is_refused_with_its_place() -> None:
    with pytest.raises(UserError, match=r"reset\[0\].*did you mean 'launch'"):
        settings_of({"reset": [{"do": "lanch"}]})
