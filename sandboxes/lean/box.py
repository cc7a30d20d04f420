"""Runs of the compiler, each in a box of its own that is used once, and started ahead where the toolchain can wait.

A compiler that was started ahead has the library imported when its task comes. Nothing of a submission is in it till
then, and it is never used again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agenthub.errors import BoxLost, HostFault, UserError
from agenthub.isolation import Box, BoxSpec, Isolation, Limits
from agenthub.sandboxes.isolation.frames import exchange
from agenthub.sandboxes.lean import guest
from agenthub.sandboxes.lean.toolchain import Toolchain
from agenthub.sandboxes.pool import Pool

__all__ = ["NOT_BEGUN", "PARTS", "Ahead", "Compiler", "Ran"]

_GRACE_S = 15.0
_MOST_FRAME = 64 << 20
PARTS = ("Main.olean", "Main.olean.server", "Main.olean.private")
_MOST_FILE = 64 << 20
NOT_BEGUN = guest.NOT_BEGUN
"""Exit status of what was started ahead and could not go on: it is to be done from cold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What a compiler that is started ahead of its task begins with; it waits where it opens `agenthub-go`."""

    arguments: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How one run ended. Nothing of it is proof of anything: what was run may have written all of it."""

    code: int | None = None
    """Exit status as the box tells it; None where it did not end by itself."""
    late: bool = False
    flood: bool = False
    oom: bool = False
    lost: str = ""
    """How the box ended, where it did."""
    out: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Of the files that were asked for, those that are there."""
    peak_mb: int = 0
    cpu_s: float = 0.0
    above: int = 0
    """Lines that stood before the text it was given."""
    last: tuple[int, int] | None = None
    """Line and column of that text's end, where more stood behind it."""

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The compiled parts of Main, in their order; empty where there are none."""
        return tuple(self.files[name] for name in PARTS if name in self.files)


class Compiler:
    """Boxes with the toolchain in them. One caller's runs are kept apart from another's by a fresh box each."""

    def __init__(
        self, isolation: Isolation, toolchain: Toolchain, *, limits: Limits, warm: int = 1, at_once: int | None = None
    ) -> None:
        """
        Args:
            limits: of one box.
            warm: boxes that are kept started ahead; 0 for none.
            at_once: runs at any moment; one for each processor where None.
        """
        self.toolchain, self.limits, self.isolation = toolchain, limits, isolation
        self.warm = warm if "ahead" in toolchain.capabilities else 0
        self._pools: dict[Ahead, Pool] = {}
        self._slots = asyncio.Semaphore(at_once or max(1, os.cpu_count() or 1))

    async def run(
        self, files: Mapping[str, bytes], arguments: Sequence[str], *, seconds: float, collect: Sequence[str] = ()
    ) -> Ran:
        """Run `lean` with these arguments beside these files.

        Args:
            collect: files of the workspace that are taken out afterwards.

        Raises:
            HostFault: our side failed.
            UserError: this machine cannot give the limits.
        """
        async with self._slots:
            box = await self.isolation.spawn(self._spec(None))
            return await self._used(box, files, [*self.toolchain.command, *arguments], seconds, collect)

    async def go_on(
        self, ahead: Ahead, files: Mapping[str, bytes], *, seconds: float, collect: Sequence[str] = ()
    ) -> Ran:
        """Give one that was started ahead these files, and let it go on; only where `warm` is not 0. As `run`."""
        async with self._slots:
            if ahead not in self._pools:
                self._pools[ahead] = Pool(self.isolation, self._spec(ahead), low=self.warm - 1, high=self.warm)
            box = await self._pools[ahead].take()
            return await self._used(box, files, [], seconds, collect)

    def _spec(self, ahead: Ahead | None) -> BoxSpec:
        told: tuple[str, ...] = ()
        if ahead is not None:
            command = [*self.toolchain.command, *ahead.arguments]
            told = (json.dumps({"files": _encoded(dict(ahead.files)), "command": command}),)
        argv = (os.path.realpath(sys.executable), "-I", "-c", _guest(), *told)
        toolchain = self.toolchain
        return BoxSpec(image="python", argv=argv, mounts=toolchain.mounts, env=toolchain.env, limits=self.limits)

    async def _used(
        self, box: Box, files: Mapping[str, bytes], command: Sequence[str], seconds: float, collect: Sequence[str]
    ) -> Ran:
        try:
            message = {
                "id": 1,
                "files": _encoded(files),
                "command": command,
                "seconds": seconds,
                "output_bytes": self.limits.output_bytes,
            }
            reply, lost = await _asked(box, message, seconds + _GRACE_S)
            found = await _collected(box, collect)
            used = box.usage()
        finally:
            ended = await asyncio.shield(box.kill())
        if ended.host_fault:
            raise HostFault(f"the box was lost: {ended.reason}")
        told = _told(reply)
        why = "" if reply else (ended.reason if ended.oom or ended.code not in (None, 0) else lost)
        return Ran(**told, oom=ended.oom, lost=why, files=found, peak_mb=used.peak_mb, cpu_s=used.cpu_s)

    async def close(self) -> None:
        """Give up what waits."""
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.close()


def _encoded(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


@functools.cache
def _guest() -> str:
    return Path(guest.__file__).read_text(encoding="utf-8")


def _told(reply: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a reply says, whatever it is."""
    if reply is None:
        return {}
    code, out = reply.get("code"), reply.get("out")
    try:
        text = base64.b64decode(out if isinstance(out, str) else "", validate=True).decode("utf-8", "backslashreplace")
    except ValueError:
        text = ""
    return {
        "code": code if type(code) is int else None,
        "late": reply.get("late") is True,
        "flood": reply.get("flood") is True,
        "out": text,
    }


async def _collected(box: Box, names: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in names:
        # What is missing, too large, or no regular file is not there.
        with contextlib.suppress(UserError, BoxLost):
            found[name] = await box.read_file(name, max_bytes=_MOST_FILE)
    return found


async def _asked(box: Box, message: Mapping[str, Any], seconds: float) -> tuple[dict[str, Any] | None, str]:
    """The resident program's reply, or None and why there is none."""
    try:
        return await exchange(box, message, timeout_s=seconds, most_bytes=_MOST_FRAME), ""
    except TimeoutError:
        return None, f"no answer within {seconds:g} s"
    except (OSError, EOFError, ValueError, RecursionError) as error:
        # It may have ended before it was asked.
        return None, f"the box ended: {error}"
