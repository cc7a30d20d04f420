"""The sandbox factories of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from agenthub.blobs import Blobs, MemoryBlobs
from agenthub.codec import encode
from agenthub.registry import registry
from agenthub.sandbox import CodeBox, Keeping, Sandbox, SandboxFactory, SandboxSpec

__all__ = ["Outliving", "Workbench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliving:
    """What sandboxes are to outlive a killed hub for."""

    folder: Path
    """Where the next hub looks for them; only its owner may read it."""
    grace_s: float
    """Seconds that the next hub is waited for."""


class Workbench:
    """The sandbox factories of one process, opened by registry name on first use."""

    def __init__(self, isolation: str = "jail", outliving: Outliving | None = None) -> None:
        self.isolation = isolation
        """Of every sandbox whose task names none."""
        self.blobs: Blobs = MemoryBlobs()
        """Where images and other large parts of observations are kept."""
        self._outliving = outliving
        self._wanted: Callable[[str], bool] = _nothing
        self._factories: dict[str, SandboxFactory] = {}
        self._lock = asyncio.Lock()

    def want(self, wanted: Callable[[str], bool]) -> None:
        """Which labels' sandboxes of a killed hub are to go on; the others end as their kind is opened."""
        self._wanted = wanted

    def forsake(self, wanted: Callable[[str], bool]) -> None:
        """End what a killed hub kept under the labels that are not wanted (any more)."""
        for factory in self._factories.values():
            if isinstance(factory, Keeping):
                factory.forsake(wanted)

    async def factory(self, uses: str) -> SandboxFactory:
        """The factory of one sandbox kind.

        Raises:
            UnknownName, UserError: no such kind, or this machine cannot have it.
            HostFault: its shared part could not be started.
        """
        found = self._factories.get(uses)
        if found is not None:
            return found
        async with self._lock:
            if uses not in self._factories:
                made = cast(SandboxFactory, registry("sandbox").load(uses)(isolation=self.isolation))
                if isinstance(made, Keeping) and self._outliving is not None:
                    made.keep_at(self._outliving.folder / _socket(uses), self._outliving.grace_s)
                    await made.open()
                    made.forsake(self._wanted)
                else:
                    await made.open()
                self._factories[uses] = made
            return self._factories[uses]

    async def start(self, uses: str, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox of one kind. Raises as `factory` and `SandboxFactory.start` do."""
        return await (await self.factory(uses)).start(self._own(spec))

    async def code_box(self, uses: str) -> CodeBox:
        """A fresh grading box. Raises as `factory` and `SandboxFactory.code_box` do."""
        return await self.box(uses, SandboxSpec())

    async def box(self, uses: str, spec: SandboxSpec) -> CodeBox:
        """A fresh grading box with this spec. Raises as `code_box` does."""
        return await (await self.factory(uses)).code_box(self._own(spec))

    def capabilities(self) -> dict[str, Any]:
        """What the opened sandbox kinds can do, by name."""
        return {name: encode(factory.capabilities()) for name, factory in sorted(self._factories.items())}

    @property
    def warm(self) -> int:
        """Boxes that wait in the pools of the opened kinds; a kind without pools has none."""
        return sum(getattr(factory, "warm", 0) for factory in self._factories.values())

    async def close(self) -> None:
        """Close every factory, the last opened first."""
        while self._factories:
            _, factory = self._factories.popitem()
            await factory.close()

    def _own(self, spec: SandboxSpec) -> SandboxSpec:
        return spec if spec.isolation else replace(spec, isolation=self.isolation)


def _socket(uses: str) -> str:
    """What another version of ours left is not gone on with: its boxes may speak otherwise."""
    from agenthub import __version__

    return f"{uses}-{__version__}.socket"


def _nothing(label: str) -> bool:
    return False
