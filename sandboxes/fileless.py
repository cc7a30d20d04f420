"""What the sandboxes without files share, and those without a box: these run no code, and cost nothing to start."""

from __future__ import annotations

from agenthub.errors import UserError
from agenthub.records import Call, Observation, Text, frozen
from agenthub.sandbox import CodeBox, SandboxSpec, ToolSpec

__all__ = ["FilelessFactory", "FilelessSandbox", "NoFiles", "code_of", "failed", "text_tool"]


def text_tool(name: str, description: str, what: str) -> ToolSpec:
    """A tool with one argument, `code`, as the protocols with blocks send it; `what` it is."""
    properties = {"code": {"type": "string", "description": what}}
    parameters = {"type": "object", "properties": properties, "required": ["code"], "additionalProperties": False}
    return ToolSpec(name=name, description=description, parameters=frozen(parameters))


def code_of(call: Call) -> str | None:
    """The argument of such a tool; None where the call has others, or none."""
    code = call.arguments.get("code")
    return code if isinstance(code, str) and len(call.arguments) == 1 else None


def failed(call: Call, text: str = "error: the tool takes one argument, code, a string\n") -> Observation:
    """What a call that went wrong shows."""
    return Observation(call_id=call.id, parts=(Text(text=text, channel="error"),), failed=True)


class NoFiles:
    """The part of a `Sandbox` that is about files, where there are none."""

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Refused."""
        raise UserError(f"no file {path!r}: this sandbox has no files")

    async def write_file(self, path: str, data: bytes) -> None:
        """Refused."""
        raise UserError("this sandbox has no files")

    async def list_files(self) -> list[str]:
        """None."""
        return []


class FilelessSandbox(NoFiles):
    """A `Sandbox` without a box, but for its calls and copies."""

    async def close(self) -> None:
        """There is nothing to free."""


class FilelessFactory:
    """A `SandboxFactory` but for its tools, capabilities and start."""

    def __init__(self, isolation: str = "jail") -> None:
        """Nothing of a program runs here, so every `isolation` is as good."""

    async def open(self) -> None:
        """There is nothing to start."""

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        """Refused."""
        raise UserError("this sandbox runs no code")

    async def close(self) -> None:
        """There is nothing to free."""
