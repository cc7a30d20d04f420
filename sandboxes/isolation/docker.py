"""Boxes in containers of a Docker engine: no network, a read-only root, no capability, an unprivileged user.

A box is reached through the engine's own attach stream and nothing else, so the engine may be elsewhere (a socket, a
virtual machine on a Mac), no folder is shared with it, and the container ends when the hub does: the end of the stream
is the end of its process 1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from agenthub.errors import HostFault, UserError, nearest
from agenthub.isolation import BoxSpec, Layer, LayerState, Limits
from agenthub.sandboxes.isolation import container_spec
from agenthub.sandboxes.isolation.container_box import ContainerBox
from agenthub.sandboxes.isolation.container_engine import APIError, Engine, NotFound
from agenthub.sandboxes.isolation.container_group import ContainerGroup, why_not
from agenthub.sandboxes.isolation.container_stream import BoxStream

__all__ = ["Docker"]

_AT_ONCE = 8
"""Starts in the making at any moment; an engine is not faster with more."""


class Docker:
    """An `Isolation`; used within one event loop."""

    name = "docker"
    runtime = ""
    """The engine's default runtime."""
    overhead = container_spec.Overhead()

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._facts: dict[str, Any] = {}
        self._group: ContainerGroup | None = None
        """Over all boxes; None where the engine cannot have one."""
        self._boxes: set[ContainerBox] = set()
        self._making: set[asyncio.Future[ContainerBox]] = set()
        """Starts that may have lost whoever asked for them."""
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def open(self) -> None:
        """Connect, and remove what a hub that is gone left behind. Raises as Isolation.open says."""
        engine = await asyncio.to_thread(Engine.connect)
        try:
            self._facts = await engine.call(engine.api.info) | {"Url": engine.url}
            if self.runtime and self.runtime not in self._facts["Runtimes"]:
                raise UserError(
                    f"the engine at {engine.url} has no runtime {self.runtime!r}; install it and register it in the"
                    f" engine's daemon.json under `runtimes`{nearest(self.runtime, self._facts['Runtimes'])}"
                )
            self._engine = engine
            await self._reap()
            ContainerGroup.sweep()
            if not why_not(engine.url, self._facts):
                self._group = ContainerGroup(self._facts["MemTotal"] >> 20)
        except BaseException:
            self._engine = None
            await asyncio.to_thread(engine.close)
            raise

    async def spawn(self, spec: BoxSpec) -> ContainerBox:
        """Start a box whose image has Python: the program's socket is its descriptor 3. Raises as Isolation.spawn."""
        return await self._spawn(spec, plain=False, workspace=container_spec.WORKSPACE)

    async def spawn_plain(self, spec: BoxSpec, *, workspace: str) -> ContainerBox:
        """Start a box of a task's own image, which needs `sh`, `cat` and no Python; use it with `ContainerBox.exec`.

        `workspace` is the one folder, beside /tmp, that can be written; it starts empty. Raises as Isolation.spawn.
        """
        return await self._spawn(spec, plain=True, workspace=workspace)

    async def image(self, name: str) -> dict[str, Any]:
        """The engine's facts of an image. Raises UserError where it is not there."""
        engine, reference = self._open_engine(), container_spec.reference(name)
        try:
            found: dict[str, Any] = await engine.call(engine.api.inspect_image, reference)
            return found
        except NotFound:
            raise UserError(await self._no_image(reference)) from None
        except APIError as error:
            raise HostFault(f"the engine refused: {error.explanation}") from error

    async def copy_out(self, image: str, path: str, *, max_bytes: int) -> bytes:
        """A folder of an image as a tar file whose names start with the folder's own; nothing of the image runs.

        Raises:
            UserError: the image or the folder is not there, or the folder is too large.
            HostFault: the engine does not answer.
        """
        engine = self._open_engine()
        await self.image(image)
        made = await self._create(
            {"image": container_spec.reference(image), "command": ["/"], "network_disabled": True}
        )
        try:
            return await engine.call(_archive, engine, made, path, max_bytes)
        except NotFound:
            raise UserError(f"image {image!r} has no folder {path!r}") from None
        except APIError as error:
            raise HostFault(f"the engine refused: {error.explanation}") from error
        finally:
            await asyncio.shield(engine.call(engine.api.remove_container, made, force=True, v=True))

    def layers(self) -> tuple[Layer, ...]:
        """What holds a box in; asks the engine, starts nothing."""
        try:
            facts = self._facts or _ask()
        except UserError as error:
            detail = f"{error}; without it there are no tasks in images of their own"
            return (Layer(name=self.name, state=LayerState.MISSING, detail=detail),)
        return _layers(facts, self.runtime)

    async def close(self) -> None:
        """Kill every box and let go of the engine."""
        await asyncio.gather(*self._making, return_exceptions=True)
        boxes = list(self._boxes)
        for box in boxes:
            box.discard()
        for box in boxes:
            await box.kill()
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.close)
        if self._group is not None:
            self._group.remove()

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise HostFault(f"the {self.name} isolation is not open")
        return self._engine

    async def _spawn(self, spec: BoxSpec, *, plain: bool, workspace: str) -> ContainerBox:
        if spec.network != "none":
            raise UserError(f"{self.name} has no network {spec.network!r}; expected 'none'")
        self._check(spec.limits)
        await self.image(spec.image)
        order = None if plain else container_spec.order(spec)
        engine = self._open_engine()
        args = container_spec.create_args(engine.api, spec, self._held(), plain=plain, workspace=workspace)
        async with self._at_once:
            making = asyncio.ensure_future(self._make(args, order, spec.limits))
            self._making.add(making)
            making.add_done_callback(self._making.discard)
            try:
                return await asyncio.shield(making)
            except asyncio.CancelledError:
                # The engine may be in the middle of it; what it makes must not stay.
                making.add_done_callback(_discard_result)
                raise

    def _held(self) -> container_spec.Held:
        """What holds every box. Raises HostFault where the group over them cannot be made."""
        if self._group is not None:
            try:
                self._group.ensure()
            except OSError as error:
                raise HostFault(f"no control group for all boxes: {error}") from error
        return container_spec.Held(
            runtime=self.runtime,
            overhead=self.overhead,
            seccomp=_has_seccomp(self._facts),
            x86_64=self._facts["Architecture"] == "x86_64",
            parent=self._group.parent if self._group is not None else "",
        )

    def _check(self, limits: Limits) -> None:
        """Refuse what the engine's machine does not have, by name. Raises UserError."""
        there = {"memory_mb": self._facts["MemTotal"] >> 20, "cpus": self._facts["NCPU"]}
        for name, most in there.items():
            if getattr(limits, name) > most:
                raise UserError(f"limits.{name} is {getattr(limits, name)}; the engine's machine can give {most}")

    async def _make(self, args: dict[str, Any], order: dict[str, Any] | None, limits: Limits) -> ContainerBox:
        engine = self._open_engine()
        container = await self._create(args)
        try:
            path = f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
            stream = BoxStream(await engine.hijack(path))
        except HostFault:
            await engine.call(engine.api.remove_container, container, force=True, v=True)
            raise
        group = self._group.name if self._group is not None else "docker"
        box = ContainerBox(container, engine, stream, limits, self._boxes.discard, group)
        self._boxes.add(box)
        try:
            await box.begin(order)
        except BaseException:
            await box.kill()
            raise
        return box

    async def _create(self, args: dict[str, Any]) -> str:
        engine = self._open_engine()
        try:
            made = await engine.call(engine.api.create_container, **args)
        except NotFound:
            raise UserError(await self._no_image(args["image"])) from None
        except APIError as error:
            if error.is_client_error():
                raise UserError(f"the engine cannot give what was asked: {error.explanation}") from None
            raise HostFault(f"the engine refused: {error.explanation}") from error
        identity: str = made["Id"]
        return identity

    async def _no_image(self, reference: str) -> str:
        engine = self._open_engine()
        rows = await engine.call(engine.api.images)
        known = sorted(container_spec.short(tag) for row in rows for tag in row["RepoTags"] or ())
        how = "`agenthub images build --engine SUITE` makes the images of a suite's languages"
        if reference.startswith("agenthub/build-"):
            suite = reference.removeprefix("agenthub/build-").partition(":")[0]
            how = f"`agenthub images build {suite}` builds it from the suite's Dockerfile"
        if reference == container_spec.reference("python"):
            how = "`docker build -t agenthub/python -f docker/python.Dockerfile docker` makes it"
        return f"the engine has no image {reference!r}{nearest(container_spec.short(reference), known)}; {how}"

    async def _reap(self) -> None:
        engine = self._open_engine()
        rows = await engine.call(engine.api.containers, all=True, filters={"label": container_spec.OWNER})
        for row in rows:
            if container_spec.orphaned(row["Labels"][container_spec.OWNER], running=row["State"] == "running"):
                try:
                    await engine.call(engine.api.remove_container, row["Id"], force=True, v=True)
                except APIError:
                    continue


def _has_seccomp(facts: Mapping[str, Any]) -> bool:
    return any(option.startswith("name=seccomp") for option in facts["SecurityOptions"])


def _layers(facts: Mapping[str, Any], wanted: str) -> tuple[Layer, ...]:
    runtime = wanted or facts["DefaultRuntime"]
    known = runtime in facts["Runtimes"]
    missing = [name for name in ("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota") if not facts.get(name)]
    no_group = why_not(facts["Url"], facts)
    budget = f"{ContainerGroup(facts['MemTotal'] >> 20).memory_mb} MiB for all boxes together"
    kernel = (
        "gVisor's kernel; the host's is out of reach" if wanted == "runsc" else "our profile, no AF_VSOCK, no 32-bit"
    )
    secure = _has_seccomp(facts) or wanted == "runsc"
    return (
        Layer(name="engine", state=LayerState.OK, detail=f"Docker {facts['ServerVersion']}"),
        Layer(
            name="runtime",
            state=LayerState.OK if known else LayerState.MISSING,
            detail=runtime if known else f"{runtime} is not registered with the engine",
        ),
        Layer(
            name="limits",
            state=LayerState.DEGRADED if missing else LayerState.OK,
            detail=f"cgroup v{facts.get('CgroupVersion', '1')}"
            + (f"; not held: {', '.join(missing)}" if missing else ""),
        ),
        Layer(
            name="budget",
            state=LayerState.DEGRADED if no_group else LayerState.OK,
            detail=f"no limit over all boxes together: {no_group}" if no_group else budget,
        ),
        Layer(
            name="seccomp",
            state=LayerState.OK if secure else LayerState.DEGRADED,
            detail=kernel if secure else "the engine has no seccomp: the whole kernel is in reach",
        ),
    )


def _discard_result(making: asyncio.Future[ContainerBox]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().discard()


def _ask() -> dict[str, Any]:
    engine = Engine.connect()
    try:
        return engine.info() | {"Url": engine.url}
    finally:
        engine.close()


def _archive(engine: Engine, container: str, path: str, max_bytes: int) -> bytes:
    chunks, _ = engine.api.get_archive(container, path)
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > max_bytes:
            raise UserError(f"folder {path!r} has more than {max_bytes >> 20} MiB")
    return bytes(found)
