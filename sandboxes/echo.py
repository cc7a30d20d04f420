"""A tool without a box: it shows what it is told. What the hub itself costs can be seen on it."""

from __future__ import annotations

from agenthub.errors import UserError
from agenthub.records import Call, Observation, Text, frozen
from agenthub.sandbox import Capabilities, CodeBox, Sandbox, SandboxSpec, ToolSpec

__all__ = ["Echo", "EchoSandbox"]

_TOOL = ToolSpec(
    name="echo",
    description="Shows what it is told.",
    parameters=frozen(
        {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "Any text."}},
            "required": ["code"],
            "additionalProperties": False,
        }
    ),
)


class Echo:
    """A `Sandbox` that keeps nothing from call to call and has no files."""

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """Show the text again."""
        return self.call_now(call)

    def call_now(self, call: Call) -> Observation:
        """As `call`."""
        text = call.arguments.get("code")
        if not isinstance(text, str) or len(call.arguments) != 1:
            told = Text(text="error: the tool takes one argument, code, a string\n", channel="error")
            return Observation(call_id=call.id, parts=(told,), failed=True)
        return Observation(call_id=call.id, parts=(Text(text=text),))

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Refused."""
        raise UserError(f"no file {path!r}: the echo sandbox has no files")

    async def write_file(self, path: str, data: bytes) -> None:
        """Refused."""
        raise UserError("the echo sandbox has no files")

    async def list_files(self) -> list[str]:
        """None."""
        return []

    async def fork(self, n: int) -> list[Sandbox]:
        """`n` others, which are all the same."""
        return [Echo() for _ in range(n)]

    async def close(self) -> None:
        """There is nothing to free."""


class EchoSandbox:
    """A `SandboxFactory`."""

    tools: tuple[ToolSpec, ...] = (_TOOL,)

    def __init__(self, isolation: str = "jail") -> None:
        """Nothing of a program runs here, so every `isolation` is as good."""

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do."""
        return Capabilities(persistent=False, deterministic=True, fork="stateless")

    async def open(self) -> None:
        """There is nothing to start."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox. Raises UserError where the spec asks for what it has not."""
        if spec.files or spec.params:
            raise UserError("the echo sandbox has neither files nor settings")
        return Echo()

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        """Refused."""
        raise UserError("the echo sandbox runs no code")

    async def close(self) -> None:
        """There is nothing to free."""
