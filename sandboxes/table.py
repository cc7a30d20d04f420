"""A table of players without a box: the policy says one thing, and hears what those after it say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.records import Call, Observation, Text
from agenthub.sandbox import Capabilities, Sandbox, SandboxSpec, ToolSpec
from agenthub.sandboxes.fileless import FilelessFactory, FilelessSandbox, code_of, failed, text_tool

__all__ = ["Table", "TableSandbox"]


class Table(FilelessSandbox):
    """A `Sandbox` that remembers whether the policy has spoken."""

    def __init__(self, after: tuple[str, ...], *, spoken: bool = False) -> None:
        self._after, self._spoken = after, spoken

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """As Sandbox.call says."""
        return self.call_now(call)

    def call_now(self, call: Call) -> Observation:
        """As `call`."""
        if code_of(call) is None:
            return failed(call)
        if self._spoken:
            return failed(call, "error: you have spoken; vote\n")
        self._spoken = True
        return Observation(call_id=call.id, parts=(Text(text="\n".join([*self._after, "Vote."]) + "\n"),))

    async def fork(self, n: int) -> list[Sandbox]:
        """`n` others in the same state."""
        return [Table(self._after, spoken=self._spoken) for _ in range(n)]


class TableSandbox(FilelessFactory):
    """A `SandboxFactory`. Its setting `after` is what the players after the policy say, a line each."""

    tools: tuple[ToolSpec, ...] = (text_tool("say", "Says one thing to all players, once.", "What you say."),)

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do."""
        return Capabilities(persistent=True, deterministic=True, fork="native")

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox. Raises UserError, UnknownName where the spec asks for what it has not."""
        if spec.files:
            raise UserError("the table has no files")
        return Table(_after(spec.params))


def _after(params: Mapping[str, Any]) -> tuple[str, ...]:
    for name in params:
        if name != "after":
            raise UnknownName("setting of the table", str(name), ("after",))
    after = params.get("after", ())
    if not isinstance(after, list | tuple) or not all(isinstance(line, str) for line in after):
        raise UserError(f"setting 'after' of the table is {after!r}; expected a list of lines")
    return tuple(after)
