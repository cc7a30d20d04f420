"""JSON messages with descriptors over SOCK_SEQPACKET between the hub, the supervisor and its molds; all are ours."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["MAX_BYTES", "receive", "send"]

MAX_BYTES = 1 << 17


def send(channel: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError where the other side is gone, BlockingIOError where it is full."""
    socket.send_fds(channel, [json.dumps(message, separators=(",", ":")).encode()], list(descriptors))


def receive(channel: socket.socket, most: int = 8) -> tuple[dict[str, Any] | None, list[int]]:
    """One message and its descriptors; None at the end of the stream."""
    data, descriptors, _, _ = socket.recv_fds(channel, MAX_BYTES, most, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None, descriptors
    return json.loads(data), descriptors
