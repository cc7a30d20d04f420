"""The jail: boxes made of the kernel's own parts (namespaces, seccomp, control groups), without an engine or a daemon.

    hub (this module) --SEQPACKET-- supervisor --fork-- mold per image --- process 1 of a box, and its worker
          |                                               ^    |                                      |
          |-- requests for boxes and for copies ----------+    |                                      |
          |-- status pipe: how it ended (hub lets go: the box dies)                                   |
          |-- socket, output pipes, workspace folder, pidfds: a turn passes through nothing else -----+

Process 1 and the worker are never trusted with anything but their own box.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import platform
import resource
import socket
from dataclasses import asdict
from typing import Any

from agenthub.errors import ForkRefused, HostFault, UnknownName, UserError
from agenthub.isolation import BoxSpec, Layer, Limits, Mount
from agenthub.sandboxes.isolation import cgroups, native, probe
from agenthub.sandboxes.isolation.attaching import Found, KeptBox, attach
from agenthub.sandboxes.isolation.expected import Expected, Hello
from agenthub.sandboxes.isolation.images import IMAGES
from agenthub.sandboxes.isolation.jailbox import JailBox
from agenthub.sandboxes.isolation.launch import Keep
from agenthub.sandboxes.isolation.link import Link, Telling
from agenthub.sandboxes.isolation.moldlink import MoldLink

__all__ = ["Jail"]

_SPAWN_S = 20.0
_AT_ONCE = 16
"""Spawns in the making at any moment; more only take the processor from the boxes that are nearly ready."""
_OPEN_FILES = 65_536
_COPIES_AT_ONCE = 32

_Key = tuple[str, tuple[Mount, ...]]


class Jail:
    """An `Isolation`. One supervisor serves it and is started again where it died; used within one event loop."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._molds: dict[_Key, MoldLink] = {}
        self._boxes: dict[JailBox, MoldLink] = {}
        self._starting = asyncio.Lock()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._closed = False
        self._native: native.Native | None = None
        self._no_native = "the jail is not open"
        self._keep: Keep | None = None
        self._left: dict[str, tuple[JailBox, dict[str, Any]]] = {}
        """Boxes that a killed hub left, by label, with what it said of them."""

    def keep_at(self, keep: Keep) -> None:
        """Let boxes that are kept outlive this process, and look for what an earlier one left. Before `open`."""
        self._keep = keep

    def take(self, label: str) -> tuple[JailBox, dict[str, Any]] | None:
        """A box that a killed hub kept under a label, with what was kept of it; None where it is gone."""
        box, facts = self._left.pop(label, (None, {}))
        return (box, facts) if box is not None and not box.finished and box.end is None else None

    def left(self) -> set[str]:
        """Labels of what can be taken."""
        return set(self._left)

    async def open(self) -> None:
        """Start the supervisor. Raises as Isolation.open says."""
        missing = probe.missing()
        if missing is not None:
            raise UserError(f"this machine cannot have the jail: {missing.name}: {missing.detail}")
        _allow_open_files()
        try:
            self._native = await asyncio.to_thread(native.built)
        except native.NotBuilt as lacking:
            self._no_native = str(lacking)
        if self._keep is not None:
            found = await attach(self._keep)
            if found is not None:
                self._take_over(found)
                # A supervisor that starts does this itself.
                await asyncio.to_thread(lambda: cgroups.sweep(cgroups.find()))
        await self._supervisor()

    def _take_over(self, found: Found) -> None:
        """Go on with the supervisor, the molds and the boxes of a killed hub."""
        self._link = found.link
        molds: dict[int, MoldLink] = {}
        for row, mold in found.molds:
            molds[mold.number] = mold
            self._molds[(row["image"], tuple(Mount(**mount) for mount in row["mounts"]))] = mold
            mold.on_close(functools.partial(self._condemn, mold))
        for kept in found.boxes:
            box = self._found(kept, molds[kept.facts["mold"]])
            self._left[kept.facts["facts"]["label"]] = (box, kept.facts["facts"])

    def _found(self, kept: KeptBox, mold: MoldLink) -> JailBox:
        hello = Hello(name=kept.facts["box"], descriptors=kept.descriptors, ours=kept.facts["ours"])
        limits = Limits(**kept.facts["limits"])
        box = self._box(kept.control, kept.status, hello, limits, mold)
        box.found()
        return box

    async def spawn(self, spec: BoxSpec) -> JailBox:
        """Start a box. Raises as Isolation.spawn says."""
        _check(spec)
        async with self._at_once:
            while True:
                mold = await self._mold(spec)
                box = await self._in_time(mold, spec)
                if mold.alive and self._link is not None and self._link.alive:
                    return box
                # The supervisor died while the box was made, so the box is about to; a new supervisor makes another.
                box.discard()

    async def _in_time(self, mold: MoldLink, spec: BoxSpec) -> JailBox:
        async with asyncio.timeout(_SPAWN_S) as limit:
            try:
                return await self._born(mold, spec)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise HostFault(f"a box was not ready after {_SPAWN_S:g} s") from error

    async def warm(self, image: str) -> None:
        """Start the mold of an image before the first box asks for it. Raises as `spawn` does."""
        await self._mold(BoxSpec(image=image))

    async def no_fork(self, image: str) -> str:
        """Why live boxes of an image cannot be copied here; empty where they can. Raises as `spawn` does."""
        return (await self._mold(BoxSpec(image=image))).no_fork

    def layers(self) -> tuple[Layer, ...]:
        """What holds a box in on this machine."""
        return probe.layers()

    async def close(self) -> None:
        """Kill every box and end the supervisor."""
        self._closed = True
        boxes = list(self._boxes)
        for box in boxes:
            box.discard()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                for box in boxes:
                    await box.ended()
        for mold in self._molds.values():
            mold.close()
        self._molds.clear()
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def _supervisor(self) -> Link:
        async with self._starting:
            if self._closed:
                raise HostFault("the jail is closed")
            if self._link is None or not self._link.alive:
                if self._link is not None:
                    await self._link.close()
                self._molds.clear()
                self._link = await Link.start(self._keep)
            return self._link

    async def _mold(self, spec: BoxSpec) -> MoldLink:
        key = (spec.image, spec.mounts)
        link = await self._supervisor()
        async with self._starting:
            mold = self._molds.get(key)
            if mold is None or not mold.alive:
                mold = self._molds[key] = await link.mold(spec.image, spec.mounts, self._native, self._no_native)
                mold.on_close(functools.partial(self._condemn, mold))
            return mold

    async def _born(self, mold: MoldLink, spec: BoxSpec) -> JailBox:
        message = {"argv": spec.argv, "env": dict(spec.env), "limits": asdict(spec.limits)}
        return (await self._made(mold, message, spec.limits, 1))[0]

    async def _copies(self, box: JailBox, count: int, order: bytes) -> list[JailBox]:
        """As JailBox.copies says."""
        mold = self._boxes.get(box)
        if mold is None or not mold.alive:
            raise HostFault("the mold of the box is gone")
        if mold.no_fork:
            raise ForkRefused(mold.no_fork)
        made: list[JailBox] = []
        try:
            async with asyncio.timeout(_SPAWN_S) as limit:
                while len(made) < count:
                    more = min(count - len(made), _COPIES_AT_ONCE)
                    made += await self._made(mold, {"copy": box.id}, box.limits, more, order)
        except BaseException as error:
            for it in made:
                it.discard()
            if isinstance(error, TimeoutError) and limit.expired():
                raise HostFault(f"the copies were not ready after {_SPAWN_S:g} s") from error
            raise
        return made

    async def _made(
        self, mold: MoldLink, message: dict[str, Any], limits: Limits, count: int, order: bytes = b""
    ) -> list[JailBox]:
        """Boxes that one message asks a mold for. Raises HostFault, ForkRefused; nothing is left of them then."""
        expected = [Expected(order) for _ in range(count)]
        boxes: list[JailBox] = []
        try:
            try:
                await mold.spawn(message, [descriptor for it in expected for descriptor in it.given])
            finally:
                for it in expected:
                    it.sent()
            while expected:
                hello = await expected[0].hello()
                boxes.append(self._settled(mold, expected.pop(0), hello, limits))
        except BaseException:
            for it in expected:
                it.drop()
            for box in boxes:
                box.discard()
            raise
        return boxes

    def _settled(self, mold: MoldLink, made: Expected, hello: Hello, limits: Limits) -> JailBox:
        return self._box(made.control, made.status, hello, limits, mold)

    def _box(self, control: socket.socket, status: int, hello: Hello, limits: Limits, mold: MoldLink) -> JailBox:
        groups = self._link.facts["groups"] if self._link is not None else {}
        box = JailBox(control, status, hello, limits, groups, self._on_change, self._copies, self._tell, mold.number)
        self._boxes[box] = mold
        return box

    def _tell(self, telling: Telling) -> None:
        """Tell the supervisor of a box that it is to be kept, or is no more."""
        if self._keep is not None and self._link is not None and self._link.alive:
            self._link.tell(telling)

    def _condemn(self, mold: MoldLink) -> None:
        """A mold is gone, and its boxes with it: none of them may stay frozen, for then it could not end."""
        for box, owner in list(self._boxes.items()):
            if owner is mold and box.end is None:
                box.condemn()

    def _on_change(self, box: JailBox) -> None:
        """A box ended or was discarded. One that our side lost tells that every box of its mold is lost as well."""
        if box.end is not None and box.end.host_fault:
            lost = self._boxes.get(box)
            for other, mold in list(self._boxes.items()):
                if mold is lost and other.end is None:
                    other.condemn()
        if box.finished:
            self._boxes.pop(box, None)


def _check(spec: BoxSpec) -> None:
    """Refuse what this machine cannot give, by name. Raises UserError."""
    if spec.image not in IMAGES:
        raise UnknownName("image of the jail", spec.image, IMAGES)
    if spec.network != "none":
        raise UserError(f"the jail has no network {spec.network!r}; expected 'none'")
    limits: Limits = spec.limits
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    most: dict[str, tuple[Any, Any]] = {
        "memory_mb": (limits.memory_mb, memory_mb),
        "cpus": (limits.cpus, os.cpu_count() or 1),
        "disk_mb": (limits.disk_mb, memory_mb),
        "open_files": (limits.open_files, _OPEN_FILES),
    }
    for name, (asked, there) in most.items():
        if asked > there:
            raise UserError(f"limits.{name} is {asked}; this machine ({platform.node()}) can give {there}")
    if limits.open_files < 16 or limits.memory_mb < 16:
        raise UserError("a box needs limits.open_files of 16 and limits.memory_mb of 16 or more")
    for row in spec.mounts:
        if not os.path.isabs(row.source) or not os.path.isabs(row.target):
            raise UserError(f"mount {row.source!r} on {row.target!r}: both must be absolute paths")
        if not os.path.exists(row.source):
            raise UserError(f"mount {row.source!r}: there is no such path on this machine")


def _allow_open_files() -> None:
    """A live box takes eight descriptors of the hub; the usual soft limit of 1024 would end at 120 boxes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else _OPEN_FILES
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
