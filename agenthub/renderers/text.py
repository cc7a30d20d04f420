"""Text protocols: how an action is written in plain text, and how observations are shown.

Owns the syntax only. Every `read` is total: any string gives a `Parsed`. Nothing here knows of tokens; a renderer keeps
special tokens out of the text of observations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from agenthub.records import Observation
from agenthub.renderer import Parsed, ParsedCall
from agenthub.renderers.native import native_calls
from agenthub.sandbox import ToolSpec

__all__ = ["BOX", "FENCE", "Boxed", "FenceSimpletir", "FenceStrict", "Native", "Span", "boxed", "fenced"]

FENCE = "```"
BOX = "\\boxed{"
NO_OUTPUT = "(no output)"
_OPENING = re.compile(r"```(?:python|py)?\n")
_SIMPLETIR_CUT = re.compile(r"^(.*?)(```(?:py|python)?\n.*?\n```)", re.DOTALL)
_SIMPLETIR_CODE = re.compile(r"```(?:py|python)?\n(.*?)\n```", re.DOTALL)
_TICKS = re.compile(r"`+")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What stands between the marks of an action, and the offset in the text where the action ends."""

    content: str
    end: int


def boxed(text: str) -> Span | None:
    """The first `\\boxed{...}` whose braces balance; None where none does. Escaped braces do not count."""
    start = text.find(BOX)
    while start >= 0:
        depth, first = 1, start + len(BOX)
        for brace in _BRACES.finditer(text, first):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0:
                return Span(content=text[first : brace.start()], end=brace.end())
        start = text.find(BOX, first)
    return None


def fenced(text: str, tag: str) -> str:
    """`text` as a block that it cannot end: the fence is longer than any run of backticks inside."""
    runs = [len(run.group()) for run in _TICKS.finditer(text)]
    fence = "`" * max(3, 1 + max(runs, default=0))
    return f"{fence}{tag}\n{text}\n{fence}"


def _shown(observation: Observation) -> str:
    return observation.text.rstrip("\n") or NO_OUTPUT


def _tool_names(tools: Sequence[ToolSpec]) -> str:
    return ", ".join(f"`{tool.name}` ({tool.description.rstrip('.')})" for tool in tools)


class _Blocks:
    """Shared by the protocols that show each observation as a fenced block of its own."""

    endings: ClassVar[frozenset[str]] = frozenset("`}")
    """Characters one of which the last token of a complete action has; renderers look at nothing else."""

    def show(self, observations: Sequence[Observation]) -> str:
        """One block an observation: `output`, `error` where it failed, `notice` where the hub speaks for itself."""
        blocks: list[str] = []
        for observation in observations:
            kind = "error" if observation.failed else "output"
            blocks.append(fenced(_shown(observation), kind if observation.call_id else "notice"))
        return "\n".join(blocks)


class FenceStrict(_Blocks):
    """A turn is a fenced block of code that ends in a bare fence on its own line and has no fence inside, or a
    `\\boxed{}` answer before any fence. Prose may come first; what comes after is cut."""

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What a system prompt says about the syntax."""
        if not tools:
            return Boxed().instructions(tools)
        return (
            f"To run code with {_tool_names(tools[:1])}, write one block and stop:\n```python\n...\n```\n"
            "Its output comes in the next message. Write no other fences. "
            "When you know the result, answer with \\boxed{...}."
        )

    def read(self, text: str) -> Parsed:
        """The first complete action. Total."""
        fence = text.find(FENCE)
        answer = boxed(text if fence < 0 else text[:fence])
        if answer is not None:
            return Parsed(text=text[: answer.end], answer=answer.content)
        if fence < 0:
            broken = BOX in text
            return Parsed(text=text, parse_error="the braces of \\boxed{ do not close" if broken else None)
        block = self._block(text, fence)
        if isinstance(block, str):
            return Parsed(text=text, parse_error=block)
        call = ParsedCall(tool=None, arguments={"code": block.content})
        return Parsed(text=text[: block.end], calls=(call,))

    def complete(self, text: str) -> bool:
        """True as soon as `text` holds a complete action."""
        parsed = self.read(text)
        return bool(parsed.calls) or parsed.answer is not None

    @staticmethod
    def _block(text: str, fence: int) -> Span | str:
        """The block that opens at `fence`, or why there is none."""
        opening = _OPENING.match(text, fence)
        if fence > 0 and text[fence - 1] != "\n":
            return "a fence must start its line"
        if opening is None:
            return "a block must open with ```python, ```py or ``` on its own line"
        close = text.find(FENCE, opening.end())
        if close < 0:
            return "the block has no closing fence"
        end = close + len(FENCE)
        if text[close - 1] != "\n" or text[end : end + 1] not in ("", "\n"):
            return "a fence inside the block; the block must close with a bare ``` on its own line"
        code = text[opening.end() : max(close - 1, opening.end())]
        if not code.strip():
            return "the block is empty"
        return Span(content=code, end=end)


class FenceSimpletir(_Blocks):
    """SimpleTIR's published patterns, with their looseness: the first complete block is run and the text after it is
    cut; `\\boxed{` anywhere in what is left ends the episode, and the code beside it is still run.

    Source: arXiv 2509.02479, `recipe/simpletir/agent_utils.py`.
    """

    endings: ClassVar[frozenset[str]] = frozenset("`")

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What a system prompt says about the syntax."""
        return FenceStrict().instructions(tools)

    def read(self, text: str) -> Parsed:
        """The first complete block and the answer beside or before it. Total."""
        cut = _SIMPLETIR_CUT.match(text)
        kept = cut.group() if cut else text
        code = _SIMPLETIR_CODE.search(kept)
        calls = (ParsedCall(tool=None, arguments={"code": code.group(1)}),) if code else ()
        answer: str | None = None
        if BOX in kept:
            closed = boxed(kept)
            answer = closed.content if closed else kept[kept.index(BOX) + len(BOX) :]
        return Parsed(text=kept, calls=calls, answer=answer)

    def complete(self, text: str) -> bool:
        """True as soon as `text` holds a complete block; an answer alone ends with the model's own end token."""
        return _SIMPLETIR_CUT.match(text) is not None

    def show(self, observations: Sequence[Observation]) -> str:
        """`Code execution result: ...`, as published."""
        return "".join(f"\nCode execution result: {_shown(observation)}\n" for observation in observations)


class Boxed(_Blocks):
    """No tools: a turn is a `\\boxed{}` answer."""

    endings: ClassVar[frozenset[str]] = frozenset("}")

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What a system prompt says about the syntax."""
        del tools
        return "Give your final answer as \\boxed{...}."

    def read(self, text: str) -> Parsed:
        """The first `\\boxed{}` whose braces balance. Total."""
        answer = boxed(text)
        if answer is not None:
            return Parsed(text=text[: answer.end], answer=answer.content)
        return Parsed(text=text, parse_error="the braces of \\boxed{ do not close" if BOX in text else None)

    def complete(self, text: str) -> bool:
        """True as soon as an answer is closed."""
        return boxed(text) is not None


class Native(_Blocks):
    """The model's own tool calls (see `native`). A message without one is the final answer: what `\\boxed{}` holds,
    else the whole message without its thinking. An empty message is no answer."""

    endings: ClassVar[frozenset[str]] = frozenset()

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """Nothing: the chat template tells of the tools."""
        del tools
        return ""

    def read(self, text: str) -> Parsed:
        """The calls of a message, or its answer. Total."""
        found = native_calls(text)
        if found.calls or found.error:
            return Parsed(text=text, calls=found.calls, parse_error=found.error)
        answer = boxed(found.rest)
        return Parsed(text=text, answer=answer.content if answer else found.rest or None)

    def complete(self, text: str) -> bool:
        """Never: only the model's own end token says that a message is done."""
        del text
        return False

    def show(self, observations: Sequence[Observation]) -> str:
        """The observations as they are; a chat template frames them."""
        return "\n".join(_shown(observation) for observation in observations)
