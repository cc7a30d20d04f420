"""One request and its reply over a box's socket: a length of four bytes, and JSON."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from agenthub.isolation import Box

__all__ = ["exchange", "receive", "send"]


async def exchange(box: Box, message: Mapping[str, Any], *, timeout_s: float, most_bytes: int) -> dict[str, Any]:
    """Send a request to a box's resident program and wait for its reply, which anything in the box may have forged.

    Args:
        most_bytes: of a reply.

    Raises:
        TimeoutError: there is none in time.
        OSError, EOFError: the box ended.
        ValueError, RecursionError: what it wrote is no reply.
    """
    channel = socket.socket(fileno=os.dup(box.fileno()))
    channel.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            await send(channel, message)
            reply = await receive(channel, most_bytes=most_bytes)
            if reply.get("id") != message["id"]:
                raise ValueError("its reply is none")
            return reply
    finally:
        channel.close()


async def send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    """Send a frame on a socket that does not block. Raises OSError."""
    data = json.dumps(message).encode()
    await asyncio.get_running_loop().sock_sendall(channel, len(data).to_bytes(4, "big") + data)


async def receive(channel: socket.socket, *, most_bytes: int) -> dict[str, Any]:
    """The next frame. Raises as `exchange` does."""
    size = int.from_bytes(await _exactly(channel, 4), "big")
    if size > most_bytes:
        raise ValueError("its reply is too large")
    reply = json.loads(await _exactly(channel, size))
    if not isinstance(reply, dict):
        raise ValueError("its reply is no object")
    return reply


async def _exactly(channel: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        chunk = await loop.sock_recv(channel, count - len(data))
        if not chunk:
            raise EOFError("its socket was closed")
        data += chunk
    return bytes(data)
