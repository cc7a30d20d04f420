"""What a command printed, as a policy is shown it."""

from __future__ import annotations

import re

from agenthub.records import Text
from agenthub.sandboxes.isolation.container_exec import ExecDone, Window

__all__ = ["parts"]

_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\uffff"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)


def parts(done: ExecDone, timeout_s: float) -> tuple[Text, ...]:
    """Output, errors, and how the command ended where that was not with status 0."""
    shown = [
        Text(text=text, channel=channel)
        for window, channel in ((done.out, "output"), (done.err, "error"))
        if (text := _text(window))
    ]
    if done.code is None:
        shown.append(Text(text=f"killed after {timeout_s:g} s, with all that ran beside it\n", channel="notice"))
    elif done.code != 0:
        shown.append(Text(text=f"exit status {done.code}\n", channel="notice"))
    return tuple(shown)


def _text(window: Window) -> str:
    """Head and tail with what would act on a terminal or a template made visible."""
    head = _harmless(bytes(window.head))
    if window.dropped:
        return f"{head}\n... {window.dropped} bytes cut ...\n{_harmless(bytes(window.tail))}"
    return head + _harmless(bytes(window.tail))


def _harmless(data: bytes) -> str:
    text = data.decode("utf-8", errors="backslashreplace").replace("\r\n", "\n")
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)
