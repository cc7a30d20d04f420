"""One request and its reply over a box's socket: a length of four bytes, and JSON."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from agenthub.isolation import Box

__all__ = ["exchange"]


async def exchange(box: Box, message: Mapping[str, Any], *, timeout_s: float, most_bytes: int) -> dict[str, Any]:
    """Send a request to a box's resident program and wait for its reply, which anything in the box may have forged.

    Args:
        most_bytes: of a reply.

    Raises:
        TimeoutError: there is none in time.
        OSError, EOFError: the box ended.
        ValueError, RecursionError: what it wrote is no reply.
    """
    loop = asyncio.get_running_loop()
    channel = socket.socket(fileno=os.dup(box.fileno()))
    channel.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            data = json.dumps(message).encode()
            await loop.sock_sendall(channel, len(data).to_bytes(4, "big") + data)
            size = int.from_bytes(await _exactly(channel, 4), "big")
            if size > most_bytes:
                raise ValueError("its reply is too large")
            reply = json.loads(await _exactly(channel, size))
            if not isinstance(reply, dict) or reply.get("id") != message["id"]:
                raise ValueError("its reply is none")
            return reply
    finally:
        channel.close()


async def _exactly(channel: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        chunk = await loop.sock_recv(channel, count - len(data))
        if not chunk:
            raise EOFError("its socket was closed")
        data += chunk
    return bytes(data)
