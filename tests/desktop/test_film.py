"""The film strip: a page that opens in a real browser, whose images load and whose steps are walked with the keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agenthub.blobs import BlobStore
from agenthub.cli import report
from agenthub.codec import encode
from agenthub.film import film, frames_of
from agenthub.images import image_ref
from agenthub.records import Call, ImageRef, Observation, Outcome, Stop, Text, Trajectory, Turn, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from tests.fakes import png

APP = typer.Typer()
APP.command()(report.command)
SCREENS = [png(40 + n, 30) for n in range(3)]


def ref(n: int) -> ImageRef:
    return image_ref(SCREENS[n])


def made() -> Trajectory:
    clicked = Call(id="0.0", tool="desktop", arguments={"action": "click", "x": 7, "y": 9})
    typed = Call(id="1.0", tool="act", arguments={"code": "mouse_drag_and_drop(1, 2, 30, 20)\n<script>x</script>"})
    turns = (
        Turn(
            index=0,
            generation=None,
            text="",
            calls=(clicked,),
            observations=(Observation(call_id="0.0", parts=(Text(text="<b>seen</b>"), ref(1))),),
        ),
        Turn(
            index=1,
            generation=None,
            text="",
            calls=(typed,),
            observations=(Observation(call_id="1.0", parts=(ref(0), ref(2))),),
            rewards={"outcome": 1.0},
        ),
    )
    return Trajectory(
        task="desktop/x",
        group="g",
        member=0,
        turns=turns,
        stop=Stop.ANSWERED,
        outcome=Outcome.OK,
        rewards={"outcome": 1.0},
        reward=1.0,
        metadata=frozen({"opening_images": [encode(ref(0))]}),
    )


def test_an_action_is_drawn_on_the_screen_that_it_was_made_on() -> None:
    first, second, between, last = frames_of(made())
    assert (first.image, first.marks) == (ref(0), ((7, 9, "click"),))
    assert (second.image, second.marks) == (ref(1), ((1, 2, "drag_and_drop"), (30, 20, "drag_and_drop")))
    assert (between.image, between.marks) == (ref(0), ())
    assert (last.image, last.marks) == (ref(2), ())


def test_what_a_policy_or_a_world_wrote_is_text_and_a_lost_image_is_said() -> None:
    page = film(made(), lambda sha256: None)
    assert "<script>x" not in page and "<b>seen" not in page and "&lt;b&gt;seen" in page
    assert "no screen" in page and "<img" not in page


def test_the_command_writes_the_page_of_a_saved_trajectory(tmp_path: Path) -> None:
    saved = tmp_path / "t.jsonl"
    saved.write_text(json.dumps(encode(made())) + "\n", encoding="utf-8")
    for data in SCREENS:
        BlobStore(tmp_path / "t.jsonl.blobs").put(image_ref(data).sha256, data)
    done = CliRunner().invoke(APP, [str(saved)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "t.html").read_text(encoding="utf-8").count("<img") == 4
    missing = CliRunner().invoke(APP, [str(saved), "--episode", "2"])
    assert missing.exit_code != 0


@pytest.mark.gui
async def test_it_opens_in_a_browser_its_images_load_and_the_keys_walk_it(browser: None) -> None:
    screens = {image_ref(data).sha256: data for data in SCREENS}
    page = film(made(), screens.get).encode()
    factory = BrowserSandbox()
    await factory.open()
    try:
        session = await factory.start(SandboxSpec(files={"index.html": page}, params={"channels": ["title", "error"]}))
        call = Call(id="", tool="act", arguments={})
        try:
            assert "screen 1 of 4, image 40 x 30" in session.opening
            for key, told in (
                ("ArrowRight", "screen 2 of 4, image 41 x 30"),
                ("End", "screen 4 of 4, image 42 x 30"),
                ("ArrowRight", "screen 4 of 4"),
                ("ArrowLeft", "screen 3 of 4, image 40 x 30"),
                ("Home", "screen 1 of 4"),
            ):
                pressed = Call(id=call.id, tool="act", arguments={"code": f"keyboard_press('{key}')"})
                assert told in (await session.call(pressed, timeout_s=60)).text
        finally:
            await session.close()
    finally:
        await factory.close()
