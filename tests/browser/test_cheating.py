"""What a policy may not do: run scripts, open what is not the task's, or end a page by anything but its own doing."""

from __future__ import annotations

import pytest

from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from tests.browser.harness import act, files, miniwob, page_script

pytestmark = [pytest.mark.gui, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
SITE = {"index.html": "<title>here</title><button>b</button>"}


@pytest.mark.parametrize(
    "code",
    [
        "evaluate('core.endEpisode(1)')",
        "page.evaluate('core.endEpisode(1)')",
        "__import__('os').system('id')",
        "click('1' + '2')",
        "x = 1",
        "upload_file('1', '/etc/passwd')",
        "",
    ],
)
async def test_scripts_and_expressions_are_refused(factory: BrowserSandbox, code: str) -> None:
    session = await factory.start(miniwob("click-test"))
    shown = await act(session, code)
    assert shown.failed and not session.over
    assert (await session.facts())["score"] is None
    await session.close()


@pytest.mark.parametrize(
    "url",
    [
        "javascript:core.endEpisode(1,false)",
        "java\nscript:core.endEpisode(1,false)",
        "  JaVaScRiPt:alert(1)",
        "file:///etc/passwd",
        "file:/etc/passwd",
        "view-source:http://miniwob.test/core/core.js",
        "chrome://version",
        "devtools://devtools/bundled/inspector.html",
        "data:text/html,<b>hello</b>",
        "blob:http://miniwob.test/0",
        "ftp://miniwob.test/",
        "http://127.0.0.1:9222/json",
        "http://miniwob.test@evil.test/",
        "http://miniwob.test.evil.test/",
        "//evil.test/",
        "\\\\evil.test\\x",
    ],
)
async def test_addresses_that_are_no_page_of_the_task_are_refused(factory: BrowserSandbox, url: str) -> None:
    session = await factory.start(miniwob("click-test"))
    shown = await act(session, f"goto({url!r})")
    assert shown.failed and not session.over
    assert (await session.facts())["score"] is None
    await session.close()


@pytest.mark.parametrize("key", ["F12", "Control+Shift+I", "Control+Shift+j", "Control+u", "Control+L"])
async def test_keys_of_the_browsers_own_tools_are_refused(factory: BrowserSandbox, key: str) -> None:
    session = await factory.start(miniwob("click-test"))
    shown = await act(session, f"keyboard_press({key!r})")
    assert shown.failed and "of the browser" in shown.text
    await session.close()


@pytest.mark.parametrize(
    "script",
    [
        "core.endEpisode(1, false, 'hacked')",
        "setTimeout(() => core.endEpisode(1), 0)",
        "WOB_RAW_REWARD_GLOBAL = 1; WOB_REWARD_GLOBAL = 1; WOB_DONE_GLOBAL = true",
        "core.endEpisode = () => 1; core.endEpisode(1)",
        "Object.defineProperty(core, 'endEpisode', {value: () => 1})",
        'JSON.stringify = () => \'{"raw": 1, "reward": 1, "stack": ""}\'; core.endEpisode(1)',
    ],
)
async def test_a_script_in_the_page_cannot_give_itself_the_score(factory: BrowserSandbox, script: str) -> None:
    session = await factory.start(miniwob("click-test-2", seed=1, reset="context"))
    await page_script(session, script)
    await act(session, "noop(100)")
    assert (await session.facts())["score"] in (None, 0.0)
    await session.close()


async def test_what_ends_a_page_first_counts(factory: BrowserSandbox) -> None:
    session = await factory.start(miniwob("click-test-2", seed=1, reset="context"))
    wrong = "TWO" if "ONE" in session.opening.splitlines()[0] else "ONE"
    await page_script(
        session, f"[...document.querySelectorAll('button')].find(b => b.textContent == '{wrong}').click()"
    )
    await page_script(session, "core.startEpisodeReal(); core.endEpisode(1)")
    await act(session, "noop()")
    assert session.over
    assert (await session.facts())["score"] != 1.0
    await session.close()


@pytest.mark.parametrize(
    "code", ["goto('about:blank')", "goto('/miniwob/click-test-2.html')", "go_back()", "new_tab()"]
)
async def test_leaving_the_page_ends_the_episode_at_0(factory: BrowserSandbox, code: str) -> None:
    session = await factory.start(miniwob("click-test"))
    await act(session, code)
    assert "left" in session.over
    assert (await session.facts())["score"] == 0.0
    await session.close()


async def test_a_page_that_is_made_to_leave_by_its_own_script_ends_at_0(factory: BrowserSandbox) -> None:
    session = await factory.start(miniwob("click-test", reset="context"))
    await page_script(session, "location.href = '/miniwob/click-test-2.html'")
    await act(session, "noop(100)")
    assert session.over and (await session.facts())["score"] == 0.0
    await session.close()


async def test_a_page_reaches_nothing_outside_of_its_site(factory: BrowserSandbox) -> None:
    site = {"index.html": "<body><p id=o>waiting</p><a href='http://example.org/'>out</a></body>"}
    session = await factory.start(files(site, channels=["axtree", "url", "error"], clock="wall"))
    for url in ("http://127.0.0.1:1/", "https://example.org/", "file:///etc/passwd", "http://169.254.169.254/"):
        await page_script(session, f"fetch('{url}').then(() => o.textContent = 'reached', () => 0)")
    shown = await act(session, "noop(200)")
    assert "reached" not in shown.text
    shown = await act(session, "mouse_click(20, 65)")
    assert "http://files.test/index.html" in shown.text
    await session.close()


async def test_the_hubs_function_is_gone_once_it_was_taken(factory: BrowserSandbox) -> None:
    session = await factory.start(miniwob("click-test", reset="context"))
    name = session._context.rules.name
    assert await page_script(session, f"typeof window['{name}']") == "undefined"
    assert await page_script(session, f"typeof window['{name}t']") == "undefined"
    await session.close()
