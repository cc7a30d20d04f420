"""The factory of Python sandboxes: owns the isolation and the warm pools, and makes sessions and grading boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agenthub.errors import HostFault, UnknownName, UserError
from agenthub.isolation import Box, BoxSpec, Isolation
from agenthub.records import frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, SandboxSpec, ToolSpec
from agenthub.sandboxes.isolation.jail import Jail
from agenthub.sandboxes.isolation.launch import Keep
from agenthub.sandboxes.pool import Pool
from agenthub.sandboxes.python.codebox import PythonCodeBox
from agenthub.sandboxes.python.session import PythonSession, Settings

__all__ = ["PythonSandbox"]

_LOW, _HIGH = 4, 8
_MOST = 128
"""Warm boxes while as many are taken every few seconds, where a box is made in milliseconds; about 2 MiB each."""
_MOST_POOLS = 8

_TOOL = ToolSpec(
    name="python",
    description=(
        "Runs Python code in an interpreter whose state lasts for the whole episode, and shows what it prints and "
        "the value of its last expression. No network; files live in the working folder."
    ),
    parameters=frozen(
        {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "Python source of any number of lines."}},
            "required": ["code"],
            "additionalProperties": False,
        }
    ),
)


class PythonSandbox:
    """A `SandboxFactory`."""

    tools: tuple[ToolSpec, ...] = (_TOOL,)

    def __init__(self, isolation: str | Isolation = "jail") -> None:
        self._name = isolation if isinstance(isolation, str) else type(isolation).__name__.lower()
        made = registry("isolation").load(isolation)() if isinstance(isolation, str) else isolation
        self._isolation: Isolation = made
        self._pools: dict[str, Pool] = {}
        self._open = False
        self.no_fork = "the sandbox is not open"

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do on this machine."""
        return Capabilities(persistent=True, deterministic=False, fork="replay" if self.no_fork else "native")

    def keep_at(self, socket: Path, grace_s: float) -> None:
        """As Keeping.keep_at says; containers are not kept."""
        if isinstance(self._isolation, Jail):
            self._isolation.keep_at(Keep(socket=socket, grace_s=grace_s))

    def kept(self, label: str, spec: SandboxSpec) -> PythonSession | None:
        """As Keeping.kept says."""
        taken = self._isolation.take(label) if isinstance(self._isolation, Jail) else None
        if taken is None:
            return None
        box, facts = taken
        session = PythonSession(box, output_bytes=spec.limits.output_bytes, settings=_settings(spec.params))
        session.resume(facts)
        return session

    def forsake(self, wanted: Callable[[str], bool]) -> None:
        """As Keeping.forsake says."""
        if isinstance(self._isolation, Jail):
            for label in [label for label in self._isolation.left() if not wanted(label)]:
                box, _ = self._isolation.take(label) or (None, {})
                if box is not None:
                    box.discard()

    async def open(self) -> None:
        """Start the isolation. Raises as Isolation.open does."""
        await self._isolation.open()
        if isinstance(self._isolation, Jail):
            # Tried with a mold of the standard image; boxes of another are made in the same way.
            self.no_fork = await self._isolation.no_fork("python")
        self._open = True

    async def start(self, spec: SandboxSpec) -> PythonSession:
        """A fresh sandbox with the spec's files. Raises as SandboxFactory.start says."""
        settings = _settings(spec.params)
        box = await self._box(spec)
        try:
            for path, data in spec.files.items():
                await box.write_file(path, data)
            return PythonSession(box, output_bytes=spec.limits.output_bytes, settings=settings)
        except BaseException:
            box.discard()
            raise

    @property
    def warm(self) -> int:
        """Boxes that wait in its pools."""
        return sum(len(pool) for pool in self._pools.values())

    async def code_box(self, spec: SandboxSpec) -> PythonCodeBox:
        """A fresh grading box. Raises as SandboxFactory.code_box says."""
        return PythonCodeBox(await self._box(spec), output_bytes=spec.limits.output_bytes)

    async def close(self) -> None:
        """Free everything that was started."""
        self._open = False
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()
        await self._isolation.close()

    async def _box(self, spec: SandboxSpec) -> Box:
        if not self._open:
            raise HostFault("the Python sandbox is not open")
        if spec.isolation not in ("", self._name):
            raise UserError(f"the task asks for isolation {spec.isolation!r}; this sandbox runs in {self._name!r}")
        wanted = BoxSpec(image=spec.image, limits=spec.limits)
        key = repr(wanted)
        if key not in self._pools:
            if len(self._pools) >= _MOST_POOLS:
                await self._pools.pop(next(iter(self._pools))).close()
            self._pools[key] = Pool(
                self._isolation, wanted, low=_LOW, high=_HIGH, most=_HIGH if self.no_fork else _MOST
            )
        return await self._pools[key].take()


def _settings(params: Mapping[str, Any]) -> Settings:
    """The tool's settings from a suite's params. Raises UserError, UnknownName."""
    known = {field.name: field.type for field in dataclasses.fields(Settings)}
    for name, value in params.items():
        if name not in known:
            raise UnknownName("setting of the Python sandbox", name, known)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise UserError(f"setting {name!r} of the Python sandbox is {value!r}; expected a number above 0")
    settings = Settings(**params)
    return dataclasses.replace(settings, shown_bytes=int(settings.shown_bytes))
