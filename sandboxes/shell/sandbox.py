"""The factory of shell sandboxes: commands in a task's own image, files that last, grading in a fresh box."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agenthub.errors import BoxLost, ForkRefused, UnknownName, UserError
from agenthub.isolation import BoxSpec
from agenthub.records import Call, Observation, Text, frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, FileChange, Plain, SandboxSpec, ToolSpec
from agenthub.sandboxes.shell.box import ShellBox
from agenthub.sandboxes.shell.output import parts
from agenthub.sandboxes.shell.tree import Tree, applied, changes, unpack, with_files

__all__ = ["ShellCodeBox", "ShellSandbox", "ShellSession"]

_ISOLATIONS = ("docker", "gvisor")
_MOST_FILES = 10_000

_TOOL = ToolSpec(
    name="shell",
    description=(
        "Runs a command with sh in the task's working folder and shows its output and exit status. Files last for the "
        "whole episode; variables and the current folder do not. No network."
    ),
    parameters=frozen(
        {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "A command line of any number of lines."}},
            "required": ["command"],
            "additionalProperties": False,
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The tool's own settings, `config` in a suite."""

    workdir: str = "/workspace"
    """Folder of the image that commands run in; a copy of its content that each box may change."""
    shown_bytes: int = 16384
    """Bytes of each of output and errors that a policy is shown, half from the start and half from the end."""
    changes: tuple[FileChange, ...] = ()
    """What an episode changed, for the boxes that grade it; a suite does not set it."""

    def __post_init__(self) -> None:
        if not isinstance(self.workdir, str) or not self.workdir.startswith("/") or self.workdir.strip("/") == "":
            raise UserError(f"setting 'workdir' of the shell sandbox is {self.workdir!r}; expected an absolute path")
        if type(self.shown_bytes) is not int or self.shown_bytes < 2:
            raise UserError(f"setting 'shown_bytes' of the shell sandbox is {self.shown_bytes!r}; expected 2 or more")


class ShellSession:
    """A `Sandbox` that can tell what changed in it."""

    def __init__(
        self, box: ShellBox, start: Tree, settings: Settings, fresh: Callable[[], Awaitable[ShellBox]]
    ) -> None:
        self._box, self._start, self._settings, self._fresh = box, start, settings, fresh

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """As Sandbox.call says."""
        command = call.arguments.get("command")
        if not isinstance(command, str) or "\0" in command:
            notice = Text(text="argument 'command' must be text without NUL\n", channel="notice")
            return Observation(call_id=call.id, parts=(notice,), failed=True)
        half = self._settings.shown_bytes // 2
        done = await self._box.run(command, timeout_s=timeout_s, head_bytes=half, tail_bytes=half)
        cut = bool(done.out.dropped or done.err.dropped)
        return Observation(call_id=call.id, parts=parts(done, timeout_s), failed=done.code != 0, truncated=cut)

    async def changes(self) -> tuple[FileChange, ...]:
        """As Tracked.changes says."""
        await self._box.quiet()
        return changes(self._start, await self._box.read())

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """As Sandbox.read_file says."""
        parts = _checked(path).split("/")
        found = await self._box.read(*("/".join(parts[:count]) for count in range(1, len(parts) + 1)))
        above, entry = [found.get("/".join(parts[:count])) for count in range(1, len(parts))], found.get(path)
        if entry is None or entry.data is None or not all(folder and folder.folder for folder in above):
            raise UserError(f"file {path!r}: there is no such regular file")
        if len(entry.data) > max_bytes:
            raise UserError(f"file {path!r} has {len(entry.data)} bytes; at most {max_bytes} can be read")
        return entry.data

    async def write_file(self, path: str, data: bytes) -> None:
        """As Sandbox.write_file says."""
        await self._box.fill(with_files({}, {_checked(path): data}))

    async def list_files(self) -> list[str]:
        """As Sandbox.list_files says."""
        tree = await self._box.read()
        return [path for path, entry in tree.items() if entry.data is not None][:_MOST_FILES]

    async def fork(self, n: int) -> list[ShellSession]:
        """As Sandbox.fork says: the files are copied; programs that still run cannot be."""
        if await self._box.busy():
            raise ForkRefused("programs still run in the box; only its files can be copied")
        tree = await self._box.read()
        copies: list[ShellSession] = []
        try:
            for _ in range(n):
                box = await self._fresh()
                copies.append(ShellSession(box, self._start, self._settings, self._fresh))
                await box.fill(tree)
        except BaseException:
            for copy in copies:
                await copy.close()
            raise
        return copies

    async def close(self) -> None:
        """Free the box."""
        await self._box.close()


class ShellCodeBox:
    """A `CodeBox` that runs commands; nothing in it is called by value."""

    def __init__(self, box: ShellBox, output_bytes: int) -> None:
        self._box, self._output_bytes = box, output_bytes

    async def run(self, source: str, *, stdin: bytes, timeout_s: float) -> tuple[Plain, bytes]:
        """Run a command: its exit status as the engine tells it, and what it wrote to output and errors together."""
        try:
            done = await self._box.run(
                f"exec 2>&1\n{source}", stdin=stdin, timeout_s=timeout_s, head_bytes=self._output_bytes, tail_bytes=0
            )
        except BoxLost as lost:
            return Plain(error=str(lost), lost=True), b""
        if done.code is None:
            return Plain(error=f"out of time after {timeout_s:g} s", lost=True), bytes(done.out.head)
        return Plain(value=done.code), bytes(done.out.head)

    async def load(self, source: str, *, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the shell sandbox runs commands; it has no module to load code into")

    async def invoke(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the shell sandbox runs commands; it has no functions to call")

    async def drive(self, name: str, *, candidate: Any, timeout_s: float) -> Plain:
        """Refused."""
        raise UserError("the shell sandbox runs commands; it has no functions to call")

    async def close(self) -> None:
        """Free the box."""
        await self._box.close()


class ShellSandbox:
    """A `SandboxFactory`. A task says which isolation it runs on; the isolations are opened on first use."""

    tools: tuple[ToolSpec, ...] = (_TOOL,)

    def __init__(self, isolation: str = "docker") -> None:
        self._default = isolation
        self._isolations: dict[str, Any] = {}
        self._folders: dict[tuple[str, str], Tree] = {}
        self._lock = asyncio.Lock()

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do: the files last, running programs are no part of the state."""
        return Capabilities(persistent=True, deterministic=False, fork="native")

    async def open(self) -> None:
        """Nothing is shared before a task names its isolation."""

    async def start(self, spec: SandboxSpec) -> ShellSession:
        """A fresh sandbox. Raises as SandboxFactory.start says."""
        settings = _settings(spec.params)
        box, tree = await self._box(spec, settings)
        return ShellSession(box, tree, settings, lambda: self._empty(spec, settings))

    async def code_box(self, spec: SandboxSpec) -> ShellCodeBox:
        """A fresh box with the image's files, then `changes` of the spec's params, then its files.

        Raises:
            BoxLost: the changes leave no room for the files.
            UserError, HostFault: as SandboxFactory.code_box says.
        """
        settings = _settings(spec.params)
        box, _ = await self._box(spec, settings)
        return ShellCodeBox(box, spec.limits.output_bytes)

    async def close(self) -> None:
        """Free everything that was started."""
        while self._isolations:
            _, isolation = self._isolations.popitem()
            await isolation.close()

    async def _empty(self, spec: SandboxSpec, settings: Settings) -> ShellBox:
        isolation = await self._isolation(spec.isolation or self._default)
        wanted = BoxSpec(image=spec.image, limits=spec.limits, env={"HOME": "/tmp"})
        return ShellBox(await isolation.spawn_plain(wanted, workspace=settings.workdir), settings.workdir, spec.limits)

    async def _box(self, spec: SandboxSpec, settings: Settings) -> tuple[ShellBox, Tree]:
        isolation = await self._isolation(spec.isolation or self._default)
        start = await self._folder(isolation, spec, settings)
        tree = with_files(applied(start, settings.changes), spec.files)
        box = await self._empty(spec, settings)
        try:
            await box.fill(tree)
        except UserError as error:
            await box.close()
            if settings.changes:
                raise BoxLost(f"what was changed does not fit: {error}") from error
            raise
        except BaseException:
            await box.close()
            raise
        return box, tree

    async def _isolation(self, name: str) -> Any:
        if name not in _ISOLATIONS:
            raise UserError(
                f"the shell sandbox runs in a task's own image, which isolation {name!r} cannot start; the task needs"
                f" `sandbox: {{isolation: docker}}` (or gvisor)"
            )
        async with self._lock:
            if name not in self._isolations:
                made = registry("isolation").load(name)()
                await made.open()
                self._isolations[name] = made
            return self._isolations[name]

    async def _folder(self, isolation: Any, spec: SandboxSpec, settings: Settings) -> Tree:
        """The image's own content of the working folder; read once for each image, without running it."""
        image = await isolation.image(spec.image)
        key = (image["Id"], settings.workdir)
        if key not in self._folders:
            most = spec.limits.disk_mb << 20
            archive = await isolation.copy_out(spec.image, settings.workdir, max_bytes=2 * most)
            self._folders[key] = unpack(archive, strip=1, max_bytes=most)
        return self._folders[key]


def _settings(params: Mapping[str, Any]) -> Settings:
    """The tool's settings. Raises UserError, UnknownName."""
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in params:
        if name not in known:
            raise UnknownName("setting of the shell sandbox", name, known - {"changes"})
    return Settings(**params)


def _checked(path: str) -> str:
    if not path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise UserError(f"path {path!r} is not a relative path inside the workspace")
    return path
