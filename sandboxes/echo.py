"""A tool without a box: it shows what it is told. What the hub itself costs can be seen on it."""

from __future__ import annotations

from agenthub.errors import UserError
from agenthub.records import Call, Observation, Text
from agenthub.sandbox import Capabilities, Sandbox, SandboxSpec, ToolSpec
from agenthub.sandboxes.fileless import FilelessFactory, FilelessSandbox, code_of, failed, text_tool

__all__ = ["Echo", "EchoSandbox"]


class Echo(FilelessSandbox):
    """A `Sandbox` that keeps nothing from call to call."""

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """Show the text again."""
        return self.call_now(call)

    def call_now(self, call: Call) -> Observation:
        """As `call`."""
        text = code_of(call)
        return failed(call) if text is None else Observation(call_id=call.id, parts=(Text(text=text),))

    async def fork(self, n: int) -> list[Sandbox]:
        """`n` others, which are all the same."""
        return [Echo() for _ in range(n)]


class EchoSandbox(FilelessFactory):
    """A `SandboxFactory`."""

    tools: tuple[ToolSpec, ...] = (text_tool("echo", "Shows what it is told.", "Any text."),)

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do."""
        return Capabilities(persistent=False, deterministic=True, fork="stateless")

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox. Raises UserError where the spec asks for what it has not."""
        if spec.files or spec.params:
            raise UserError("the echo sandbox has neither files nor settings")
        return Echo()
