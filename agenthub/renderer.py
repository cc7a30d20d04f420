"""Renderers: how an episode becomes tokens, and how a policy's tokens become an action.

Two protocols. A `TextProtocol` reads an action from text and shows observations as text; the hub uses it on
`{"text": ...}` actions, the rollout uses it inside a renderer. A `Renderer` belongs to a model family: it owns the role
tokens or the chat template, so that a context is extended by ids and never rendered again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agenthub.records import Ints, Message, Observation
from agenthub.sandbox import ToolSpec

__all__ = ["Parsed", "ParsedCall", "Renderer", "TextProtocol", "Tokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCall:
    """A call as it stands in the text; `tool` None means the episode's first tool."""

    tool: str | None
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a turn's text says."""

    text: str
    """The kept text: what comes after a complete action is cut."""
    calls: tuple[ParsedCall, ...] = ()
    answer: str | None = None
    parse_error: str | None = None
    """Why no action could be read; None where one was, or where the text has none and may have none."""


class TextProtocol(Protocol):
    """An action syntax in plain text. Stateless."""

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What a system prompt says about the syntax."""

    def read(self, text: str) -> Parsed:
        """Read one turn. Total: any string gives a Parsed, never an exception."""

    def complete(self, text: str) -> bool:
        """True as soon as `text` holds a complete action, so that sampling can stop."""

    def show(self, observations: Sequence[Observation]) -> str:
        """The observations of one turn as the text of the next message."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that renderers use."""

    def encode(self, text: str, /, *, add_special_tokens: bool = False) -> list[int]: ...

    def decode(self, ids: Sequence[int], /, *, skip_special_tokens: bool = False) -> str: ...


class Renderer(Protocol):
    """An episode as tokens of one model family. Stateless: the caller keeps the ids."""

    stop_ids: frozenset[int]
    """Tokens that end a turn."""

    def open(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Ints:
        """Prompt ids up to and including the header of the first assistant turn."""

    def extend(self, observations: Sequence[Observation], *, ended: bool) -> Ints:
        """Ids that follow a turn: its end token unless `ended` (the turn's own ids hold it), the observations, and the
        header of the next assistant turn. `prompt + turn + extend` is the next prompt."""

    def parse(self, ids: Ints) -> tuple[Parsed, int]:
        """What a turn's sampled ids say, and how many of them are kept (through the token that completes the action,
        stop token included)."""

    def complete(self, ids: Sequence[int]) -> bool:
        """True as soon as the sampled ids hold a complete action."""
