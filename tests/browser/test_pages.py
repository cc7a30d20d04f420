"""Acting on pages of a site, and what is shown of them."""

from __future__ import annotations

import struct

import pytest

from agenthub.errors import UserError
from agenthub.records import Call, ImageRef
from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from agenthub.sandboxes.browser.session import BrowserSession
from tests.browser.harness import WAIT_S, act, files, miniwob, page_script

pytestmark = [pytest.mark.gui, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
FORM = """<title>form</title>
<label>Name <input id=n></label> <input id=d type=date> <input id=t type=time> <textarea id=a></textarea>
<select id=s><option>red</option><option disabled>grey</option><option value=g>green</option></select>
<select id=m multiple size=3><option>one</option><option>two</option><option>three</option></select>
<input type=checkbox id=c> <button onclick="o.textContent = [n.value, d.value, t.value, a.value, s.value,
  [...m.selectedOptions].map(x => x.text), c.checked].join('|')">tell</button> <p id=o></p>"""
DRAG = """<style>div {position: absolute; width: 40px; height: 40px; top: 100px}</style>
<div id=a style="left:20px;background:red">a</div><div id=b style="left:200px;background:blue">b</div><p id=o></p>
<script>let held = false; a.onmousedown = () => held = true;
document.onmouseup = e => { if (held && e.clientX > 200 && e.isTrusted) o.textContent = 'dropped';
held = false }</script>"""


def _id(session: BrowserSession, shown: str, what: str) -> str:
    line = next(line for line in shown.splitlines() if what in line)
    return line.strip().partition("]")[0].removeprefix("[")


async def test_a_form_is_filled_in_by_the_keyboard(factory: BrowserSandbox) -> None:
    session = await factory.start(files({"index.html": FORM}, channels=["dom", "error"]))

    def named(name: str) -> str:
        line = next(line for line in session.opening.splitlines() if f' id="{name}"' in line)
        return line.partition('eid="')[2].partition('"')[0]

    code = (
        f"fill('{named('n')}', 'Ada Ł')\nfill('{named('d')}', '2016-05-17')\nfill('{named('t')}', '17:05')\n"
        f"click('{named('a')}')\nkeyboard_type('a b\\nc!')\nselect_option('{named('s')}', 'green')\n"
        f"select_option('{named('m')}', ['one', 'three'])\nclick('{named('c')}')"
    )
    shown = await act(session, code)
    assert not shown.failed, shown.text
    button = next(line for line in shown.text.splitlines() if ">tell<" in line).partition('eid="')[2].partition('"')[0]
    shown = await act(session, f"click('{button}')")
    assert "Ada Ł|2016-05-17|17:05|a b c!|g|one,three|true" in " ".join(shown.text.split())
    await session.close()


async def test_events_are_a_persons_and_elements_are_dragged(factory: BrowserSandbox) -> None:
    session = await factory.start(files({"index.html": DRAG}, channels=["dom", "error"]))
    names = [line.partition('eid="')[2].partition('"')[0] for line in session.opening.splitlines() if "<div" in line]
    shown = await act(session, f"drag_and_drop('{names[0]}', '{names[1]}')")
    assert "dropped" in shown.text
    await session.close()


async def test_timers_pass_by_the_pages_clock_and_are_waited_for(factory: BrowserSandbox) -> None:
    page = """<button onclick="setTimeout(() => o.textContent = 'soon', 300)">a</button>
    <button onclick="setTimeout(() => o.textContent = 'late ' + (Date.now() - t), 60000)">b</button><p id=o></p>
    <script>const t = Date.now()</script>"""
    session = await factory.start(files({"index.html": page}))
    assert "soon" in (await act(session, f"click('{_id(session, session.opening, 'button')}')")).text
    other = [line for line in session.opening.splitlines() if "button" in line][1]
    other = other.strip().partition("]")[0].removeprefix("[")
    assert "late" not in (await act(session, f"click('{other}')")).text
    assert "late 60" in (await act(session, "wait(60000)")).text
    assert session._context.page.elapsed_ms >= 60_000
    await session.close()


async def test_the_wall_clock_is_waited_for_too(factory: BrowserSandbox) -> None:
    page = "<button onclick=\"setTimeout(() => o.textContent = 'soon', 100)\">a</button><p id=o></p>"
    session = await factory.start(files({"index.html": page}, clock="wall"))
    assert "soon" in (await act(session, f"click('{_id(session, session.opening, 'button')}')")).text
    await session.close()


async def test_links_history_and_tabs(factory: BrowserSandbox) -> None:
    site = {
        "index.html": "<title>one</title><a href='two.html'>to two</a> <a href='two.html' target=_blank>new</a>",
        "two.html": "<title>two</title><p>second</p>",
    }
    session = await factory.start(files(site, channels=["url", "title", "tabs", "axtree", "error"]))
    first = _id(session, session.opening, "'to two'")
    assert "second" in (await act(session, f"click('{first}')")).text
    assert "title: one" in (await act(session, "go_back()")).text
    assert "title: two" in (await act(session, "go_forward()")).text
    shown = (await act(session, "go_back()")).text
    other = _id(session, shown, "'new'")
    shown = (await act(session, f"click('{other}')")).text
    assert "1* 'two'" in shown
    assert "title: one" in (await act(session, "tab_focus(0)")).text
    assert "about:blank" in (await act(session, "new_tab()")).text
    assert "second" in (await act(session, "goto('/two.html')")).text
    shown = (await act(session, "tab_close()\ntab_close()\ntab_close()")).text
    assert "about:blank" in shown
    assert "no tab 7" in (await act(session, "tab_focus(7)")).text
    await session.close()


async def test_dialogs_are_shown_and_do_not_stop_the_page(factory: BrowserSandbox) -> None:
    page = "<button onclick=\"alert('hello'); o.textContent = confirm('sure?')\">a</button><p id=o></p>"
    session = await factory.start(files({"index.html": page}))
    shown = (await act(session, f"click('{_id(session, session.opening, 'button')}')")).text
    assert "alert: hello" in shown and "confirm, which was dismissed: sure?" in shown and "false" in shown
    await session.close()


async def test_the_wheel_scrolls_and_what_is_out_of_sight_is_scrolled_to(factory: BrowserSandbox) -> None:
    end = "<button onclick=\"o.textContent = 'hit ' + scrollY\">end</button>"
    page = f"<div style='height:3000px'>top</div><p id=o></p>{end}"
    session = await factory.start(files({"index.html": page}))
    await act(session, "scroll(0, 500)")
    assert await page_script(session, "scrollY") == 500
    assert "hit 2" in (await act(session, f"click('{_id(session, session.opening, 'button')}')")).text
    await session.close()


async def test_what_cannot_be_hit_is_said_at_once(factory: BrowserSandbox) -> None:
    page = """<button>under</button><div style="position:fixed;inset:0;background:#fffa"></div>
    <button style="display:none">gone</button>"""
    session = await factory.start(files({"index.html": page}, channels=["axtree", "dom", "error"]))
    shown = await act(session, f"click('{_id(session, session.opening, 'button')}')")
    assert shown.failed and "something lies over it" in shown.text
    assert "no element has the id '999'" in (await act(session, "click('999')")).text
    await session.close()


async def test_json_is_as_good_as_calls(factory: BrowserSandbox) -> None:
    session = await factory.start(files({"index.html": "<button onclick=\"this.textContent='hit'\">a</button>"}))
    given = {"type": "click", "id": _id(session, session.opening, "button")}
    shown = await session.call(Call(id="c", tool="do", arguments=given), timeout_s=WAIT_S)
    assert "hit" in shown.text
    shown = await session.call(Call(id="c", tool="do", arguments={"type": "evaluate"}), timeout_s=WAIT_S)
    assert shown.failed and "no action is named 'evaluate'" in shown.text
    await session.close()


@pytest.mark.parametrize("kind", ["png", "webp"])
async def test_pictures_are_kept_by_content_and_marks_have_boxes(factory: BrowserSandbox, kind: str) -> None:
    spec = files({"index.html": "<button>a</button>"}, channels=["marks", "screenshot", "som"], image=kind)
    session = await factory.start(spec)
    refs = list(session.opening_images)
    shown = await act(session, "noop()")
    refs += [part for part in shown.parts if isinstance(part, ImageRef)]
    blobs = session.take_blobs()
    assert [(ref.width, ref.height, ref.media_type) for ref in refs] == [(400, 300, f"image/{kind}")] * 4
    assert set(blobs) == {ref.sha256 for ref in refs} and session.take_blobs() == {}
    assert refs[0].sha256 != refs[1].sha256
    if kind == "png":
        assert struct.unpack(">II", blobs[refs[0].sha256][16:24]) == (400, 300)
    assert "[3] 8,8," in session.opening
    await session.close()


async def test_the_order_of_channels_is_fixed_and_only_those_asked_for_are_shown(factory: BrowserSandbox) -> None:
    session = await factory.start(
        files({"index.html": "<title>t</title><input autofocus>"}, channels=["focused", "url", "title", "action"])
    )
    shown = await act(session, "noop()")
    assert [part.channel for part in shown.parts if not isinstance(part, ImageRef)] == [  # type: ignore[union-attr]
        "url",
        "title",
        "focused",
        "action",
    ]
    assert "textbox" in shown.text
    await session.close()


async def test_messages_and_what_is_infeasible_are_facts(factory: BrowserSandbox) -> None:
    session = await factory.start(files({"index.html": "<p>x</p>"}))
    await act(session, "send_msg_to_user('42')\nreport_infeasible('no such page')")
    facts = await session.facts()
    assert (facts["messages"], facts["infeasible"]) == (["42"], "no such page")
    assert session.over
    await session.close()


async def test_contexts_share_nothing_and_pages_share_what_their_rung_says(factory: BrowserSandbox) -> None:
    read = "[document.cookie, localStorage.x || '', window.y || ''].join('|')"
    seen = {}
    for reset in ("context", "reload", "page"):
        session = await factory.start(miniwob("click-test", reset=reset))
        await page_script(session, "document.cookie = 'x=1'; localStorage.x = 1; window.y = 1")
        await session.close()
        session = await factory.start(miniwob("click-test", reset=reset))
        seen[reset] = await page_script(session, read)
        await session.close()
    assert seen == {"context": "||", "reload": "x=1|1|", "page": "x=1|1|1"}


async def test_a_browser_of_its_own_has_the_tasks_limits(factory: BrowserSandbox) -> None:
    session = await factory.start(files({"index.html": "<p>x</p>"}, reset="browser"))
    assert factory._leases is not None
    assert session._context.browser not in factory._leases.browsers
    await session.close()
    assert not session._context.browser.alive


async def test_what_this_machine_cannot_give_is_a_user_error(factory: BrowserSandbox) -> None:
    with pytest.raises(UserError, match="cannot be started"):
        await factory.start(miniwob("click-test").__class__(params={"site": "miniwob", "page": "no-such-page"}))
