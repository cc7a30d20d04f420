"""Actions as Python: code in a box of the Python sandbox, with a mouse and a keyboard that lead to the desktop.

The code has nothing of the desktop but the input: each call of `mouse` or `keyboard` is one checked action of the
hub's, as if the policy had asked for it. The names are AgentStudio's. Variables last from turn to turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agenthub.sandbox import CodeBox, Plain

__all__ = ["run_code"]

_PRELUDE = """
import contextlib, io, traceback

def __agenthub_namespace(send):
    class Mouse:
        def move(self, x, y): return send("move", x=x, y=y)
        def click(self, x=None, y=None, button="left", clicks=1):
            if x is None: return [send("mouse_down", button=button), send("mouse_up", button=button)][-1]
            return send("click", x=x, y=y, button=button, clicks=clicks)
        def double_click(self, x, y): return send("double_click", x=x, y=y)
        def right_click(self, x, y): return send("right_click", x=x, y=y)
        def down(self, button="left"): return send("mouse_down", button=button)
        def up(self, button="left"): return send("mouse_up", button=button)
        def drag(self, x, y, x2, y2, button="left"): return send("drag", x=x, y=y, x2=x2, y2=y2, button=button)
        def scroll(self, x, y, dy=0, dx=0): return send("scroll", x=x, y=y, dx=dx, dy=dy)

    class Keyboard:
        def type(self, text): return send("type", text=text)
        def press(self, key, presses=1): return send("press", key=key, presses=presses)
        def down(self, key): return send("key_down", key=key)
        def up(self, key): return send("key_up", key=key)
        def hotkey(self, *keys):
            keys = keys[0] if len(keys) == 1 and isinstance(keys[0], (list, tuple)) else keys
            return send("hotkey", keys=list(keys))

    class Screen:
        def windows(self): return send("screenshot")
        def wait(self, seconds=1.0): return send("wait", seconds=seconds)
        def wait_for(self, title, seconds=5.0): return send("wait_for", title=title, seconds=seconds)

    return {"mouse": Mouse(), "keyboard": Keyboard(), "screen": Screen()}

__agenthub_globals = {"__name__": "__main__"}

def __agenthub_turn(proxy):
    def send(verb, **given):
        return proxy(verb, **given)
    __agenthub_globals.update(__agenthub_namespace(send))
    out, error = io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            exec(compile(__agenthub_code, "<action>", "exec"), __agenthub_globals)
        except Exception:
            error = traceback.format_exc(limit=-3)
    return [out.getvalue()[-8000:], error]
"""

Send = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


async def run_code(box: CodeBox, code: str, send: Send, *, fresh: bool, timeout_s: float) -> tuple[str, str | None]:
    """Run code whose input goes to `send`; what it printed, and its error.

    Args:
        fresh: nothing was run in the box yet.
        send: does one action by verb and arguments; what it raises as ValueError is raised in the code.

    Raises:
        HostFault: our side failed.
    """
    if fresh:
        await box.load(_PRELUDE, timeout_s=timeout_s)
    loaded = await box.load(f"__agenthub_code = {code!r}", timeout_s=timeout_s)
    if loaded.error is not None:
        return "", loaded.error

    async def candidate(args: Sequence[Any], given: Mapping[str, Any]) -> Plain:
        if len(args) != 1 or not isinstance(args[0], str):
            return Plain(error="TypeError: expected the name of an action")
        try:
            return Plain(value=await send(args[0], given))
        except ValueError as error:
            return Plain(error=f"ValueError: {error}")

    done = await box.drive("__agenthub_turn", candidate=candidate, timeout_s=timeout_s)
    if done.error is not None:
        return "", done.error
    match done.value:
        case [str(out), str() | None as error]:
            return out, error
    return "", "the code replaced what runs it"
