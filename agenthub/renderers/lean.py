"""The text protocol `sketch`, as StepFun-Prover writes: sketches are checked, and a block of Lean is the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from agenthub.records import Observation
from agenthub.renderer import Parsed, ParsedCall
from agenthub.sandbox import ToolSpec

__all__ = ["Sketch"]

_ACTION = re.compile(
    r"<sketch>(?P<sketch>.*?)</sketch>|^```lean4?\n(?P<answer>.*?)\n```[ \t]*$", re.DOTALL | re.MULTILINE
)
_TAGS = re.compile(r"<(?=/?(?:sketch|REPL)>)")


class Sketch:
    """A turn is `<sketch>...</sketch>`, which the first tool checks, or a ```lean4 block, which is the answer; the
    first of the two counts, and what comes after it is cut. Source: arXiv 2507.20199."""

    endings: ClassVar[frozenset[str]] = frozenset("`>")

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What a system prompt says about the syntax."""
        check = f"To have a proof or a sketch of one (with `sorry`) checked by {tools[0].name}, write " if tools else ""
        say = (
            f"{check}<sketch>...</sketch> and stop; what Lean says comes between <REPL> and </REPL>. " if check else ""
        )
        return f"{say}When the proof is done, write it as one block and stop:\n```lean4\n...\n```"

    def read(self, text: str) -> Parsed:
        """The first complete action. Total."""
        found = _ACTION.search(text)
        if found is None:
            opened = "<sketch>" in text or "```lean" in text
            return Parsed(text=text, parse_error="a sketch or block that does not close" if opened else None)
        if found["answer"] is not None:
            return Parsed(text=text[: found.end()], answer=found["answer"])
        call = ParsedCall(tool=None, arguments={"code": _unfenced(found["sketch"])})
        return Parsed(text=text[: found.end()], calls=(call,))

    def complete(self, text: str) -> bool:
        """True as soon as `text` holds a complete action."""
        return _ACTION.search(text) is not None

    def show(self, observations: Sequence[Observation]) -> str:
        """What Lean said, between tags that it cannot close."""
        said = (_TAGS.sub("&lt;", observation.text.rstrip("\n")) or "(no output)" for observation in observations)
        return "\n".join(f"<REPL>\n{text}\n</REPL>" for text in said)


def _unfenced(code: str) -> str:
    found = re.fullmatch(r"\s*```(?:lean4?)?\n(.*?)\n?```\s*", code, re.DOTALL)
    return found[1] if found else code.strip("\n")
