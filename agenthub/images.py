"""What an image is, read from its first bytes: nothing is decoded, whatever made it."""

from __future__ import annotations

import hashlib
import struct

from agenthub.records import ImageRef

__all__ = ["MAX_IMAGE_BYTES", "MAX_SIDE", "image_ref"]

MAX_IMAGE_BYTES = 16 << 20
MAX_SIDE = 16_384
"""Pixels."""
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers of a frame header: all of SOF0 to SOF15 but the three that are tables."""


def image_ref(data: bytes) -> ImageRef:
    """The record of a PNG, WebP or JPEG image.

    Raises:
        ValueError: it is none of them, or larger than is kept.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"an image of {len(data)} bytes; at most {MAX_IMAGE_BYTES} are kept")
    try:
        media_type, (width, height) = _read(data)
    except (struct.error, IndexError):
        raise ValueError("an image that ends within its header") from None
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError(f"an image of {width} x {height} pixels; a side has 1 to {MAX_SIDE}")
    return ImageRef(sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, width=width, height=height)


def _read(data: bytes) -> tuple[str, tuple[int, int]]:
    if data.startswith(_PNG) and data[12:16] == b"IHDR":
        return "image/png", struct.unpack_from(">II", data, 16)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", _webp(data)
    if data[:3] == b"\xff\xd8\xff":
        return "image/jpeg", _jpeg(data)
    raise ValueError("neither PNG, WebP nor JPEG")


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        low, mid, high, low_h, mid_h, high_h = struct.unpack_from("6B", data, 24)
        return 1 + (low | mid << 8 | high << 16), 1 + (low_h | mid_h << 8 | high_h << 16)
    raise ValueError("a WebP image of an unknown kind")


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("a JPEG image without a frame")
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + max(2, length)
