"""The plain renderer: role tokens around text. It belongs to the tiny policy and to any tokenizer with its five tokens.

An episode is `<|user|>question<|end|><|assistant|>action<|end|><|tool|>what it showed<|end|><|assistant|>` and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

from agenthub.errors import UserError
from agenthub.records import Ints, Message, Observation, ints
from agenthub.renderer import Parsed, TextProtocol
from agenthub.renderers.safe import Endings, HFTokenizer, Seams
from agenthub.sandbox import ToolSpec

__all__ = ["END", "ROLES", "PlainRenderer", "ToldRenderer"]

END = "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>", "tool": "<|tool|>"}


class PlainRenderer:
    """Episodes as role tokens and text. `instructions` puts the protocol's own words before the messages."""

    def __init__(self, tokenizer: HFTokenizer, protocol: TextProtocol, *, instructions: bool = False) -> None:
        """
        Raises:
            UserError: the tokenizer lacks the role tokens.
        """
        self._seams = Seams(tokenizer)
        missing = [token for token in (END, *ROLES.values()) if token not in self._seams.controls]
        if missing:
            raise UserError(f"the plain renderer needs the tokens {', '.join(missing)}; use the chat renderer instead")
        self._role = {role: self._seams.controls[token] for role, token in ROLES.items()}
        self._end = self._seams.controls[END]
        self._protocol, self._instructions = protocol, instructions
        self.stop_ids = frozenset({self._end})
        self._endings = Endings(tokenizer, protocol, self.stop_ids)

    def open(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Ints:
        """Prompt ids up to and including the first assistant role token."""
        ids: list[int] = []
        if self._instructions:
            ids += self._message("system", self._protocol.instructions(tools))
        for message in messages:
            ids += self._message(message.role, message.content)
        return ints([*ids, self._role["assistant"]])

    def extend(self, observations: Sequence[Observation], *, ended: bool) -> Ints:
        """Ids that follow a turn, up to and including the next assistant role token."""
        shown = self._message("tool", self._protocol.show(observations))
        return ints([*([] if ended else [self._end]), *shown, self._role["assistant"]])

    def parse(self, ids: Ints) -> tuple[Parsed, int]:
        """What the sampled ids say, and how many of them are kept."""
        return self._endings.parse(ids)

    def complete(self, ids: Sequence[int]) -> bool:
        """True as soon as the sampled ids hold a complete action."""
        return self._endings.complete(ids)

    def _message(self, role: str, text: str) -> list[int]:
        return [self._role[role], *self._seams.plain(text), self._end]


class ToldRenderer(PlainRenderer):
    """The plain renderer for a policy that was not trained on the protocol: it is told its instructions first."""

    def __init__(self, tokenizer: HFTokenizer, protocol: TextProtocol) -> None:
        """As `PlainRenderer`."""
        super().__init__(tokenizer, protocol, instructions=True)
