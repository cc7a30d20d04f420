"""Short ways to a session and through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agenthub.generators.miniwob import pages
from agenthub.records import Call, Message, Observation, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from agenthub.sandboxes.browser.session import BrowserSession
from agenthub.suites.task import Check, Task, TaskLimits, ToolUse, Verifier
from tests.browser.oracles import ORACLES, view_of

WAIT_S = 60.0
SMALL = {"width": 160, "height": 210}


def miniwob(page: str, seed: int = 0, **more: Any) -> SandboxSpec:
    """A page of MiniWoB++, reset as its suite does."""
    params = {"site": "miniwob", "page": page, "seed": seed, "reset": pages()[page]["reset"], **SMALL, **more}
    return SandboxSpec(params=frozen({"channels": ["goal", "dom", "error"], **params}))


def files(given: Mapping[str, str], **more: Any) -> SandboxSpec:
    """A site of files of the test's own."""
    params = {"channels": ["axtree", "error"], "width": 400, "height": 300, **more}
    return SandboxSpec(files={path: text.encode() for path, text in given.items()}, params=frozen(params))


async def act(session: BrowserSession, code: str, *, timeout_s: float = WAIT_S) -> Observation:
    """One call of the tool `act`."""
    return await session.call(Call(id="c", tool="act", arguments={"code": code}), timeout_s=timeout_s)


async def page_script(session: BrowserSession, expression: str) -> Any:
    """What a cheat with a debugger would do: run a script in the page, past the sandbox's own tools."""
    page = session._context.page
    done = await page.call("Runtime.evaluate", expression=expression, returnByValue=True)
    return done["result"].get("value", done.get("exceptionDetails"))


async def solve(factory: BrowserSandbox, page: str, seed: int) -> tuple[float | None, str]:
    """Play a page's oracle: the score, and a line for a person."""
    session = await factory.start(miniwob(page, seed))
    shown = ""
    try:
        play = ORACLES[page](view_of(session.opening))
        code = next(play)
        for _ in range(80):
            seen = await act(session, code)
            shown = seen.text
            if session.over:
                break
            code = play.send(view_of(shown))
    except StopIteration:
        pass
    finally:
        facts = await session.facts()
        await session.close()
    return facts["score"], f"{page} seed {seed}: {facts['goal']!r} {facts['reason']} {shown[:200]}"


def task(spec: SandboxSpec, **changes: Any) -> Task:
    """A task on a page, scored by its world."""
    made = Task(
        id="t",
        suite="pages",
        split="train",
        messages=(Message(role="user", content="Do what the goal says."),),
        protocol="fence_strict",
        tools=(ToolUse(name="browser", uses="browser", spec=spec),),
        verifier=Verifier(checks=(Check(id="world", uses="world_score"),)),
        limits=TaskLimits(max_turns=8, turn_seconds=60.0),
        on_no_call="remind",
    )
    return replace(made, **changes)
