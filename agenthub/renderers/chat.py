"""The chat renderer: a model family's own chat template, with its native tool calls or a text protocol.

The template is rendered once for the opening. Every later prompt is the ids so far and what the template puts after an
assistant's message, so nothing is tokenised twice. A template that would not render a longer episode as an extension of
the shorter one is refused when the renderer is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agenthub.errors import UserError
from agenthub.records import Ints, Message, Observation, frozen, ints
from agenthub.renderer import Parsed, TextProtocol
from agenthub.renderers.safe import Endings, HFTokenizer, Seams
from agenthub.renderers.text import Native
from agenthub.sandbox import ToolSpec

__all__ = ["ChatRenderer", "ChatTokenizer"]

_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
_TURN = "agenthub turn 5d1f0c"
"""Stands for an assistant's message while the template is rendered; the template must show it as it is."""


class ChatTokenizer(HFTokenizer, Protocol):
    """A Hugging Face tokenizer with a chat template."""

    chat_template: str | dict[str, str] | None
    bos_token: str | None
    eos_token: str | None


class ChatRenderer:
    """Episodes by a Hugging Face chat template.

    With the protocol `native` the template tells of the tools and shows observations as tool messages. With any other,
    the protocol's instructions join the system message, and observations are shown as user messages.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        protocol: TextProtocol,
        template: str | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            template: Jinja source; None is the tokenizer's own.
            variables: more names that the template reads (`enable_thinking`, `date_string`).

        Raises:
            UserError: there is no template, it is broken, or it does not extend what it rendered before.
        """
        self._tokenizer, self._protocol = tokenizer, protocol
        self._native = isinstance(protocol, Native)
        self._variables = frozen(variables)
        self._template = _compile(template if template is not None else _own_template(tokenizer))
        self._seams = Seams(tokenizer)
        self._ends = [end for end in dict.fromkeys((tokenizer.eos_token, *_ENDS)) if end in self._seams.controls]
        self.stop_ids = frozenset(self._seams.controls[str(end)] for end in self._ends)
        self._endings = Endings(tokenizer, protocol, self.stop_ids)
        self._check()

    def open(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Ints:
        """Prompt ids up to and including the header of the first assistant message."""
        rows = self._told(messages, tools)
        marked, seam = self._seams.mark([row["content"] for row in rows])
        rows = [{"role": row["role"], "content": text} for row, text in zip(rows, marked, strict=True)]
        return ints(self._seams.encode(self._render(rows, tools), seam))

    def extend(self, observations: Sequence[Observation], *, ended: bool) -> Ints:
        """Ids that follow a turn, up to and including the header of the next assistant message."""
        shown = self._shown(observations)
        marked, seam = self._seams.mark([row["content"] for row in shown])
        tail = self._tail([{"role": row["role"], "content": text} for row, text in zip(shown, marked, strict=True)])
        if ended:
            tail = tail[len(self._end_of(tail)) :]
        return ints(self._seams.encode(tail, seam))

    def parse(self, ids: Ints) -> tuple[Parsed, int]:
        """What the sampled ids say, and how many of them are kept."""
        return self._endings.parse(ids)

    def complete(self, ids: Sequence[int]) -> bool:
        """True as soon as the sampled ids hold a complete action."""
        return self._endings.complete(ids)

    def _told(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[dict[str, str]]:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        told = "" if self._native else self._protocol.instructions(tools)
        if not told:
            return rows
        if rows and rows[0]["role"] == "system":
            return [{"role": "system", "content": f"{rows[0]['content']}\n\n{told}"}, *rows[1:]]
        return [{"role": "system", "content": told}, *rows]

    def _shown(self, observations: Sequence[Observation]) -> list[dict[str, str]]:
        if not self._native:
            return [{"role": "user", "content": self._protocol.show(observations)}] if observations else []
        return [
            {"role": "tool" if observation.call_id else "user", "content": self._protocol.show([observation])}
            for observation in observations
        ]

    def _tail(self, shown: Sequence[dict[str, str]]) -> str:
        """What the template puts after an assistant's message when `shown` follows it."""
        rendered = self._render([*_OPENING, {"role": "assistant", "content": _TURN}, *shown], ())
        head, turn, tail = rendered.partition(_TURN)
        if not turn:
            raise UserError("the chat template does not show an assistant's message as it is")
        if head != self._render(_OPENING, ()):
            raise UserError(
                "the chat template rewrites what it rendered before (an earlier assistant message starts with "
                f"{head[-40:]!r}, the prompt for a new one with {self._render(_OPENING, ())[-40:]!r}); "
                "an episode cannot be extended by ids with it"
            )
        return tail

    def _end_of(self, tail: str) -> str:
        for end in self._ends:
            if tail.startswith(str(end)):
                return str(end)
        raise UserError(
            f"the chat template ends an assistant's message with {tail[:20]!r}; "
            f"expected one of {', '.join(map(str, self._ends))}"
        )

    def _check(self) -> None:
        rows = ("tool", "user") if self._native else ("user",)
        for role in rows:
            self._end_of(self._tail([{"role": role, "content": "1"}]))

    def _render(self, rows: Sequence[Mapping[str, str]], tools: Sequence[ToolSpec]) -> str:
        """The rendered string, with the header of an assistant message at its end unless one is the last row."""
        described = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            }
            for tool in tools
        ]
        try:
            return self._template.render(
                messages=list(rows),
                tools=described if self._native and described else None,
                add_generation_prompt=True,
                bos_token=self._tokenizer.bos_token or "",
                eos_token=self._tokenizer.eos_token or "",
                **self._variables,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise UserError(f"the chat template cannot render this conversation: {error}") from error


_OPENING: list[dict[str, str]] = [{"role": "user", "content": "agenthub question 5d1f0c"}]


def _own_template(tokenizer: ChatTokenizer) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("tool_use") or template.get("default")
    if not template:
        raise UserError("the tokenizer has no chat template; give one, or use the plain renderer")
    return template


def _compile(source: str) -> jinja2.Template:
    """The template in a sandbox, with what Hugging Face offers to templates."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise UserError(f"the chat template is not valid Jinja: {error}") from error


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
