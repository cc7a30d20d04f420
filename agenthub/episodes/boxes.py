"""The sandboxes of one episode, and which of them each tool's calls go to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

from agenthub.blobs import put_all
from agenthub.episodes.workbench import Workbench
from agenthub.errors import BoxLost, ForkRefused, HostFault, UserError, nearest
from agenthub.records import Call, ImageRef, Observation, Text
from agenthub.sandbox import (
    FileChange,
    Immediate,
    Keepable,
    Keeping,
    Pictured,
    Sandbox,
    SandboxFactory,
    SandboxSpec,
    ToolSpec,
    Tracked,
    World,
)
from agenthub.suites.task import Task, ToolUse

__all__ = ["Boxes", "NotKept", "Shown", "copyable", "distinct", "episode_of", "stateless"]

_MOST_BLOB_BYTES = 256 << 20
"""Of the images of one episode; their contents are kept as long as the hub's folder of blobs."""
_LIVE = ("native", "stateless")
_WAYS = (*_LIVE, "replay")


class NotKept(Exception):
    """A sandbox that a killed hub had is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the calls of a turn showed, up to the one that lost its box."""

    observations: tuple[Observation, ...] = ()
    lost: BoxLost | HostFault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """One sandbox and how it was made."""

    uses: str
    spec: SandboxSpec
    fork: str
    """`Capabilities.fork` of its kind."""
    deterministic: bool
    sandbox: Sandbox
    immediate: bool
    world: World | None
    """The sandbox, where it holds a world with a task in it."""
    pictured: Pictured | None
    """The sandbox, where its observations refer to images or other blobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tool:
    slot: int
    tool: str
    """The sandbox's own name for it."""
    spec: ToolSpec
    """As the policy is told of it."""


class Boxes:
    """The open sandboxes of one episode; one caller at a time."""

    def __init__(self, workbench: Workbench, slots: Sequence[_Slot] = (), tools: Sequence[_Tool] = ()) -> None:
        self._workbench = workbench
        self._slots = list(slots)
        self._tools = {tool.spec.name: tool for tool in tools}
        self._blob_bytes = 0

    async def start(self, task: Task, kept: str = "") -> None:
        """Start the task's sandboxes. Raises as `Workbench.start` does; what was started is then closed.

        Args:
            kept: take those that a killed hub kept for this episode, in place of fresh ones; such as have no state are
                fresh in any case.

        Raises:
            NotKept: one of them is gone.
        """
        try:
            for use in task.tools:
                factory = await self._workbench.factory(use.uses)
                spec = _tool_spec(factory, use.tool or factory.tools[0].name)
                slot = await self._slot(use, factory, kept)
                self._tools[use.name] = _Tool(slot=slot, tool=spec.name, spec=replace(spec, name=use.name))
        except BaseException:
            await asyncio.shield(self.close())
            raise

    async def _slot(self, use: ToolUse, factory: SandboxFactory, kept: str) -> int:
        # Two tools of one kind and one spec share one box: what the first wrote, the second reads.
        for index, slot in enumerate(self._slots):
            if (slot.uses, slot.spec) == (use.uses, use.spec):
                return index
        can = factory.capabilities()
        found: Sandbox | None = None
        if kept and can.fork != "stateless":
            found = factory.kept(_label(kept, len(self._slots)), use.spec) if isinstance(factory, Keeping) else None
            if found is None:
                raise NotKept(f"sandbox {use.uses!r} of episode {kept} is gone")
        sandbox = found or await self._workbench.start(use.uses, use.spec)
        self._slots.append(
            _Slot(
                uses=use.uses,
                spec=use.spec,
                fork=can.fork,
                deterministic=can.deterministic,
                sandbox=sandbox,
                immediate=isinstance(sandbox, Immediate),
                world=sandbox if isinstance(sandbox, World) else None,
                pictured=sandbox if isinstance(sandbox, Pictured) else None,
            )
        )
        await self._keep_blobs(self._slots[-1])
        return len(self._slots) - 1

    def keep(self, episode: str) -> None:
        """Let the next hub find them, should this one be killed, as those of that episode."""
        for index, slot in enumerate(self._slots):
            if isinstance(slot.sandbox, Keepable):
                slot.sandbox.keep(_label(episode, index))

    @property
    def tools(self) -> list[ToolSpec]:
        """The tools as a policy is told of them, in the task's order."""
        return [tool.spec for tool in self._tools.values()]

    @property
    def deterministic(self) -> bool:
        """True where every sandbox shows the same for the same calls."""
        return all(slot.deterministic for slot in self._slots)

    @property
    def copyable(self) -> bool:
        """True where `fork` can be asked for copies of what is there."""
        return all(slot.fork in _LIVE for slot in self._slots)

    @property
    def fork_way(self) -> str:
        """How copies get their state: `native`, `replay`, or `no` where they cannot."""
        if self.copyable:
            return "native"
        return "no" if any(slot.fork not in _WAYS for slot in self._slots) else "replay"

    def check_replayable(self) -> None:
        """Raise ForkRefused where calls made again in a fresh sandbox give no copy."""
        for slot in self._slots:
            if slot.fork not in _WAYS:
                raise ForkRefused(f"sandbox {slot.uses!r} can neither be copied nor replayed here")

    @property
    def workspace(self) -> Sandbox | None:
        """The first sandbox; None where there is none."""
        return self._slots[0].sandbox if self._slots else None

    async def changes(self, uses: str) -> tuple[FileChange, ...]:
        """What the episode changed in its sandbox of one kind. Raises as `Tracked.changes` does."""
        sandbox = next((slot.sandbox for slot in self._slots if slot.uses == uses), None)
        if not isinstance(sandbox, Tracked):
            raise UserError(f"the episode has no {uses!r} sandbox that can tell what changed in it")
        return await sandbox.changes()

    @property
    def opening(self) -> str:
        """What the policy is shown of the worlds in them before its first turn."""
        shown = (slot.world.opening for slot in self._slots if slot.world is not None)
        return "\n\n".join(text for text in shown if text)

    @property
    def opening_images(self) -> tuple[ImageRef, ...]:
        """Images that the policy is shown before its first turn."""
        return tuple(image for slot in self._slots if slot.pictured for image in slot.pictured.opening_images)

    async def _keep_blobs(self, slot: _Slot) -> int:
        """Keep what a sandbox has shown by reference; its bytes. Raises HostFault where it cannot be kept."""
        shown = slot.pictured.take_blobs() if slot.pictured is not None else {}
        if shown:
            await asyncio.to_thread(put_all, self._workbench.blobs, shown)
        return sum(map(len, shown.values()))

    @property
    def over(self) -> str:
        """Why one of them has ended the episode; empty while it goes on."""
        return next((slot.world.over for slot in self._slots if slot.world is not None), "")

    async def facts(self, uses: str) -> Mapping[str, Any]:
        """What the episode's sandbox of one kind tells of its world. Raises as `World.facts` does."""
        world = next((slot.world for slot in self._slots if slot.uses == uses), None)
        if world is None:
            raise UserError(f"the episode has no {uses!r} sandbox with a world in it")
        return await world.facts()

    @property
    def immediate(self) -> bool:
        """True where `run_now` can make every call."""
        return all(slot.immediate for slot in self._slots)

    def run_now(self, calls: Sequence[Call]) -> tuple[Observation, ...]:
        """`run` where all sandboxes are `immediate`."""
        shown: list[Observation] = []
        for call in calls:
            tool = self._tools.get(call.tool)
            sandbox = None if tool is None else self._slots[tool.slot].sandbox
            if tool is None:
                shown.append(self._no_tool(call))
            else:
                named = call if call.tool == tool.tool else replace(call, tool=tool.tool)
                shown.append(cast(Immediate, sandbox).call_now(named))
        return tuple(shown)

    def _no_tool(self, call: Call) -> Observation:
        return _notice(call, f"no tool named {call.tool!r}{nearest(call.tool, self._tools)}")

    async def run(self, calls: Sequence[Call], budget_s: float) -> Shown:
        """Run calls in order within `budget_s` seconds; nothing is run after one that lost its box."""
        deadline = time.monotonic() + budget_s
        shown: list[Observation] = []
        for call in calls:
            tool = self._tools.get(call.tool)
            if tool is None:
                shown.append(self._no_tool(call))
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                shown.append(_notice(call, "not run: the turn's time is up"))
                continue
            try:
                named = call if call.tool == tool.tool else replace(call, tool=tool.tool)
                seen = await self._slots[tool.slot].sandbox.call(named, timeout_s=left)
                shown.append(await self._kept(self._slots[tool.slot], seen))
            except BoxLost as lost:
                return Shown(observations=(*shown, _notice(call, str(lost))), lost=lost)
            except HostFault as fault:
                return Shown(observations=tuple(shown), lost=fault)
        return Shown(observations=tuple(shown))

    async def _kept(self, slot: _Slot, seen: Observation) -> Observation:
        """The observation, once what it refers to is kept; without that where the episode has shown too much."""
        if slot.pictured is None:
            return seen
        if self._blob_bytes > _MOST_BLOB_BYTES:
            slot.pictured.take_blobs()
            told = Text(
                text=f"not shown: the episode has shown {_MOST_BLOB_BYTES >> 20} MiB of images", channel="notice"
            )
            return replace(seen, parts=(*(part for part in seen.parts if isinstance(part, Text)), told))
        self._blob_bytes += await self._keep_blobs(slot)
        return seen

    async def fork(self, count: int) -> list[Boxes]:
        """`count` copies of every sandbox as it is now. Only where `copyable`.

        Raises:
            ForkRefused, BoxLost, HostFault: as `Sandbox.fork` does. No copy is left behind.
            UserError: as `Workbench.start` does.
        """
        columns: list[list[_Slot]] = []
        async with AsyncExitStack() as made:
            for slot in self._slots:
                columns.append(await self._copies(slot, count, made))
            made.pop_all()
        tools = list(self._tools.values())
        rows = [[column[index] for column in columns] for index in range(count)]
        return [Boxes(self._workbench, slots=row, tools=tools) for row in rows]

    async def _copies(self, slot: _Slot, count: int, made: AsyncExitStack) -> list[_Slot]:
        if slot.fork == "native":
            copies = await slot.sandbox.fork(count)
            for copy in copies:
                made.push_async_callback(copy.close)
        else:
            copies = []
            for _ in range(count):
                copies.append(await self._workbench.start(slot.uses, slot.spec))
                made.push_async_callback(copies[-1].close)
        return [
            replace(
                slot,
                sandbox=it,
                world=it if isinstance(it, World) else None,
                pictured=it if isinstance(it, Pictured) else None,
            )
            for it in copies
        ]

    async def close(self) -> None:
        """Close every sandbox. Safe to call again."""
        slots, self._slots = self._slots, []
        for slot in slots:
            await slot.sandbox.close()


async def stateless(task: Task, workbench: Workbench) -> bool:
    """True where fresh sandboxes are as good as any. Raises as `Workbench.factory` does."""
    factories = [await workbench.factory(use.uses) for use in task.tools]
    return all(factory.capabilities().fork == "stateless" for factory in factories)


def episode_of(label: str) -> str:
    """The episode whose sandbox is kept under a label."""
    return label.rpartition("/")[0]


def _label(episode: str, slot: int) -> str:
    return f"{episode}/{slot}"


async def copyable(task: Task, workbench: Workbench) -> bool:
    """True where the sandboxes of the task's episodes can be copied live. Raises as `Workbench.factory` does."""
    factories = [await workbench.factory(use.uses) for use in task.tools]
    return all(factory.capabilities().fork in _LIVE for factory in factories)


def distinct(task: Task) -> list[SandboxSpec]:
    """The spec of each sandbox that an episode of the task has."""
    seen: list[tuple[str, SandboxSpec]] = []
    for use in task.tools:
        if (use.uses, use.spec) not in seen:
            seen.append((use.uses, use.spec))
    return [spec for _, spec in seen]


def _tool_spec(factory: SandboxFactory, name: str) -> ToolSpec:
    known = {spec.name: spec for spec in factory.tools}
    if name not in known:
        raise UserError(f"the sandbox has no tool named {name!r}{nearest(name, known)}")
    return known[name]


def _notice(call: Call, text: str) -> Observation:
    return Observation(call_id=call.id, parts=(Text(text=text, channel="notice"),), failed=True)
