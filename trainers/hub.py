"""The hub that a run talks to: one that serves already, or a child of this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from agenthub.client import Hub
from agenthub.errors import HostFault, UserError

__all__ = ["hub_of", "protocol_of", "task_ids"]

START_S = 60.0
STOP_S = 0.9
"""A child that has not ended by then is killed."""
CHILD_RETRY_S = 5.0
"""A child that is gone does not come back; this is for a connection that is lost."""


@contextlib.asynccontextmanager
async def hub_of(url: str | None, folder: Path, tasks: Sequence[Path] = ()) -> AsyncIterator[Hub]:
    """A client of the hub at `url`, or of a child that serves until the body ends; its log lies in `folder`.

    Args:
        tasks: suites that the child offers; the packaged ones where there is none.

    Raises:
        HostFault: the child ended while it was needed.
        UserError: the child did not begin to serve; or `tasks` are given for a hub that has its own.
    """
    if url is not None:
        if tasks:
            raise UserError("--tasks are for a hub that is started here; the one at --hub has its own")
        async with Hub(url) as hub:
            yield hub
        return
    async with _child(folder, tasks) as address, Hub(address, retry_s=CHILD_RETRY_S) as hub:
        yield hub


@contextlib.asynccontextmanager
async def _child(folder: Path, tasks: Sequence[Path]) -> AsyncIterator[str]:
    log = _log(folder)
    reader, writer = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agenthub", "serve", "--port", "0", "--ready-fd", str(writer)),
            *("--exit-with-parent", "--grace-s", "0", "--log", str(folder / "hub.sqlite")),
            *(part for path in tasks for part in ("--tasks", str(path))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            # A terminal's SIGINT goes to the whole process group; the hub has to outlive this process's own stop.
            start_new_session=True,
        )
    finally:
        os.close(writer)
        log.close()
    try:
        address = await _address(reader, folder / "hub.log")
        async with _while_alive(process, folder / "hub.log"):
            yield address
    finally:
        await _end(process)


@contextlib.asynccontextmanager
async def _while_alive(process: asyncio.subprocess.Process, log: Path) -> AsyncIterator[None]:
    """The body, stopped with HostFault as soon as the child ends: waiting for its answers would be in vain."""
    body = asyncio.current_task()
    dead = False

    async def watch() -> None:
        nonlocal dead
        await process.wait()
        dead = True
        if body is not None:
            body.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if dead and body is not None and not body.uncancel():
            raise HostFault(f"the hub ended with status {process.returncode}: {_last_line(log)} (see {log})") from None
        raise
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


async def _address(reader: int, log: Path) -> str:
    """What the child says on its ready descriptor; an empty line is its end."""
    with os.fdopen(reader, "rb") as stream:
        pipe = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(pipe), stream
        )
        try:
            async with asyncio.timeout(START_S):
                line = await pipe.readline()
        except TimeoutError:
            raise UserError(f"the hub did not begin to serve within {START_S:.0f} s; see {log}") from None
        finally:
            transport.close()
    if not line:
        raise UserError(f"the hub did not start: {_last_line(log)} (see {log})")
    return str(json.loads(line)["url"])


def _log(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "hub.log").open("wb")


def _last_line(log: Path) -> str:
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1] if said else "it said nothing"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def task_ids(hub: Hub, suite: str, split: str) -> list[str]:
    """Ids of a split's tasks, in the suite's order.

    Raises:
        WireError: the hub has no such suite.
        UserError: the split is empty, or the suite has no such split.
    """
    rows = await hub.tasks(suite, split)
    if not rows:
        known = (await hub.suite(suite)).get("splits", [])
        raise UserError(f"suite {suite!r} has no task in split {split!r}; its splits are {', '.join(map(str, known))}")
    return [str(row["id"]) for row in rows]


async def protocol_of(hub: Hub, suite: str) -> str:
    """Name of the text protocol of a suite's first task."""
    rows = await hub.call("tasks", {"suite": suite, "split": None, "offset": 0, "limit": 1})
    if not rows["tasks"]:
        raise UserError(f"suite {suite!r} has no task")
    return str(rows["tasks"][0]["protocol"])
