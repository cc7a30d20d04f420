"""Waiting in the event loop for a descriptor: that it can be read or written, or that a process has ended."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket

__all__ = ["ended", "hung_up", "readable", "writable"]


def _settle(waiting: asyncio.Future[None]) -> None:
    """Let whoever waits go on."""
    if not waiting.done():
        waiting.set_result(None)


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read or has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Wait until a descriptor takes bytes or its other end is gone."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def hung_up(channel: socket.socket) -> bool:
    """True where the other end is gone, asked of the kernel now: the event loop may tell too late."""
    events = select.poll()
    events.register(channel, 0)
    return bool(events.poll(0))


async def ended(pidfd: int, patience_s: float) -> None:
    """Wait for a process, kill it after the patience, and let go of it."""
    try:
        async with asyncio.timeout(patience_s):
            await readable(pidfd)
    except TimeoutError:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await readable(pidfd)
    finally:
        os.close(pidfd)
