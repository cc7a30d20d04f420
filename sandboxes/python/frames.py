"""Frames between the hub and a box: four bytes of length, then one JSON object. Standard library only.

What a box sends is untrusted: the length is checked before anything is kept, and the text before it is used.
"""

from __future__ import annotations

import json
import struct
from typing import Any

__all__ = ["FrameError", "FrameParser", "encode"]

_HEAD = struct.Struct(">I")
_JSON = json.JSONEncoder(separators=(",", ":"))


class FrameError(ValueError):
    """The other side does not speak the protocol."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame."""
    # Escaped ASCII lets a lone surrogate through, which a program may well have in a string.
    data = _JSON.encode(message).encode("ascii")
    return _HEAD.pack(len(data)) + data


class FrameParser:
    """Bytes in, messages out; holds at most one frame of `max_bytes` and what followed it in one read."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Every message that is complete with these bytes.

        Raises:
            FrameError: a frame is too long, or is not a JSON object.
        """
        messages: list[dict[str, Any]] = []
        body = len(data) - _HEAD.size
        if not self._buffer and 0 <= body <= self._max_bytes and _HEAD.unpack_from(data)[0] == body:
            # By far the most: one whole frame in one read.
            return [_object(data[_HEAD.size :])]
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer)
            if length > self._max_bytes:
                raise FrameError(f"a frame of {length} bytes; at most {self._max_bytes} are taken")
            end = _HEAD.size + length
            if len(self._buffer) < end:
                break
            messages.append(_object(bytes(self._buffer[_HEAD.size : end])))
            del self._buffer[:end]
        return messages


def _object(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a frame is not JSON: {type(error).__name__}") from error
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return message
