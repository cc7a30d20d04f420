"""The factory of desktops and their tools: `desktop` takes actions as JSON, `desktop_code` Python that makes them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from agenthub.errors import HostFault, UserError
from agenthub.isolation import BoxSpec
from agenthub.records import frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, CodeBox, SandboxFactory, SandboxSpec, ToolSpec
from agenthub.sandboxes.desktop.actions import schema, written
from agenthub.sandboxes.desktop.programs import box_spec, missing
from agenthub.sandboxes.desktop.session import DesktopSession
from agenthub.sandboxes.desktop.settings import settings_of
from agenthub.sandboxes.isolation.jail import Jail
from agenthub.sandboxes.isolation.jailbox import JailBox
from agenthub.sandboxes.pool import Pool

__all__ = ["TOOLS", "DesktopSandbox"]

_BEGIN_S = 90.0
_LOW, _HIGH = 1, 2
_MOST_POOLS = 2


def _parameters() -> dict[str, Any]:
    one = schema()
    several = {"type": "array", "items": one, "description": "Several actions, in place of one."}
    return {**one, "properties": {**one["properties"], "actions": several}, "required": []}


TOOLS = (
    ToolSpec(
        name="desktop",
        description=f"Acts on the desktop and shows it. Actions:\n{written()}",
        parameters=frozen(_parameters()),
    ),
    ToolSpec(
        name="desktop_code",
        description=(
            "Runs Python that acts on the desktop by mouse.click(x, y), mouse.move, mouse.drag, mouse.scroll, "
            "keyboard.type(text), keyboard.press(key), keyboard.hotkey('ctrl', 's') and screen.wait_for(title). "
            "Variables last; the code has no files of the desktop and no network."
        ),
        parameters=frozen(
            {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "Python source of any number of lines."}},
                "required": ["code"],
                "additionalProperties": False,
            }
        ),
    ),
)


class DesktopSandbox:
    """A `SandboxFactory`. Its desktops are boxes of the jail, a few of them started ahead."""

    tools: tuple[ToolSpec, ...] = TOOLS

    def __init__(self, isolation: str = "jail") -> None:
        self._name = isolation
        self._jail: Jail | None = None
        self._python: SandboxFactory | None = None
        self._pools: dict[str, Pool] = {}
        self._lock = asyncio.Lock()

    def capabilities(self) -> Capabilities:
        """Programs live from turn to turn, and take their own time."""
        return Capabilities(persistent=True, deterministic=False, fork="replay")

    @staticmethod
    def lacking() -> str:
        """The programs of a desktop that are not here."""
        found = missing()
        packages = " ".join(dict.fromkeys(found.values()))
        return f"a desktop needs {', '.join(found)}; on Debian: apt-get install {packages}" if found else ""

    async def open(self) -> None:
        """Look for the programs and start the jail.

        Raises:
            UserError: a program is missing, or there is no jail here.
            HostFault: the jail did not start.
        """
        if self._name != "jail":
            raise UserError(f"desktops run in the jail; there is no image of one for {self._name!r} yet")
        lacking = self.lacking()
        if lacking:
            raise UserError(lacking)
        jail = Jail()
        await jail.open()
        self._jail = jail

    async def start(self, spec: SandboxSpec) -> DesktopSession:
        """A desktop after its reset. Raises as SandboxFactory.start says."""
        if spec.isolation not in ("", "jail"):
            raise UserError(f"desktops run in the jail; there is no image of one for {spec.isolation!r} yet")
        settings = settings_of(spec.params)
        box = await self._box(box_spec(spec.limits, settings.width, settings.height))
        try:
            session = DesktopSession(box, settings, self._code_box)
        except BaseException:
            box.discard()
            raise
        try:
            await session.begin(spec.files, _BEGIN_S)
        except BaseException:
            await asyncio.shield(session.close())
            raise
        return session

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        """This sandbox runs no code that is graded. Raises UserError."""
        del spec
        raise UserError("the desktop sandbox runs no code that could be graded")

    @property
    def warm(self) -> int:
        """Desktops that wait in its pools."""
        return sum(len(pool) for pool in self._pools.values())

    async def close(self) -> None:
        """Free everything that was started."""
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()
        python, self._python = self._python, None
        if python is not None:
            await python.close()
        jail, self._jail = self._jail, None
        if jail is not None:
            await jail.close()

    async def _box(self, spec: BoxSpec) -> JailBox:
        if self._jail is None:
            raise HostFault("the desktop sandbox is not open")
        key = repr(spec)
        if key not in self._pools:
            if len(self._pools) >= _MOST_POOLS:
                await self._pools.pop(next(iter(self._pools))).close()
            self._pools[key] = Pool(self._jail, spec, low=_LOW, high=_HIGH)
        return cast(JailBox, await self._pools[key].take())

    async def _code_box(self) -> CodeBox:
        """A box of the Python sandbox, which is opened at its first use."""
        async with self._lock:
            if self._python is None:
                python = cast(SandboxFactory, registry("sandbox").load("python")(isolation=self._name))
                await python.open()
                self._python = python
        return await self._python.code_box(SandboxSpec())
