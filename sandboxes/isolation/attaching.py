"""A hub that follows a killed one: the supervisor that waits for it, its molds, and the boxes as they were left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Any

from agenthub.sandboxes.isolation import messages
from agenthub.sandboxes.isolation.keeper import BOX_DESCRIPTORS
from agenthub.sandboxes.isolation.launch import Keep, address, safe
from agenthub.sandboxes.isolation.link import Link
from agenthub.sandboxes.isolation.moldlink import MoldLink

__all__ = ["Found", "KeptBox", "attach"]

_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBox:
    """A box that was left: what its hub said of it, and the descriptors that lead into it."""

    facts: dict[str, Any]
    control: socket.socket
    status: int
    descriptors: list[int]
    """Output, error output, workspace, and pidfds of process 1 and of the worker."""

    def close(self) -> None:
        """Close the descriptors; the supervisor has its own."""
        self.control.close()
        for descriptor in (self.status, *self.descriptors):
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A supervisor that waited, and everything it kept."""

    link: Link
    molds: list[tuple[dict[str, Any], MoldLink]]
    boxes: list[KeptBox]


async def attach(keep: Keep) -> Found | None:
    """Take over the supervisor that waits at the socket; None where there is none, or it has just given up.

    Its last hub must be dead: a supervisor serves one. Nothing of it is left open where this fails.
    """
    received = await asyncio.to_thread(_received, keep)
    if received is None:
        return None
    channel, facts, pidfd, rows = received
    channel.setblocking(False)
    link = Link(None, channel, facts, pidfd)
    link.watch()
    molds, boxes = [], []
    for row, descriptors in rows:
        if "mold" in row and "box" not in row:
            end = socket.socket(fileno=descriptors[0])
            end.setblocking(False)
            mold = MoldLink(end, row["mold"], row["no_fork"])
            mold.watch()
            molds.append((row, mold))
        elif len(descriptors) != BOX_DESCRIPTORS:
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            control = socket.socket(fileno=descriptors[0])
            control.setblocking(False)
            boxes.append(KeptBox(facts=row, control=control, status=descriptors[1], descriptors=descriptors[2:]))
    return Found(link=link, molds=molds, boxes=boxes)


_Row = tuple[dict[str, Any], list[int]]


def _received(keep: Keep) -> tuple[socket.socket, dict[str, Any], int, list[_Row]] | None:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(_CONNECT_S)
    rows: list[_Row] = []
    try:
        if not safe(keep.socket.parent):
            raise PermissionError(f"{keep.socket.parent} is not ours alone")
        with address(keep.socket) as name:
            channel.connect(name)
        facts, _ = messages.receive(channel)
        if facts is None:
            raise ConnectionError("the supervisor does not wait for a hub")
        pidfd = os.pidfd_open(facts["pid"])
        for _ in range(facts["molds"] + facts["boxes"]):
            row, descriptors = messages.receive(channel)
            if row is None:
                os.close(pidfd)
                raise ConnectionError("the supervisor ended")
            rows.append((row, descriptors))
    except OSError:
        for _, descriptors in rows:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        channel.close()
        return None
    return channel, facts, pidfd, rows
