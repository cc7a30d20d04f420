"""Marks on a screenshot: a frame and its id for each element that can be acted on. Drawn here, not in the page."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

__all__ = ["marked"]

_COLOURS = ("#d1242f", "#0969da", "#1a7f37", "#8250df", "#bf5b04", "#0e7490")


def marked(image: bytes, marks: Sequence[tuple[str, tuple[float, float, float, float]]], kind: str) -> bytes:
    """The image with `marks`, (id, (x, y, width, height)) each, as a png or webp."""
    with Image.open(io.BytesIO(image)) as opened:
        canvas = opened.convert("RGB")
    draw = ImageDraw.Draw(canvas)
    for number, (name, (x, y, width, height)) in enumerate(marks):
        colour = _COLOURS[number % len(_COLOURS)]
        draw.rectangle((x, y, x + max(width - 1, 1), y + max(height - 1, 1)), outline=colour)
        left, top, right, bottom = draw.textbbox((0, 0), name)
        at = (min(max(0, x), canvas.width - (right - left) - 2), min(max(0, y), canvas.height - (bottom - top) - 2))
        draw.rectangle((at[0], at[1], at[0] + right - left + 2, at[1] + bottom - top + 2), fill=colour)
        draw.text((at[0] + 1 - left, at[1] + 1 - top), name, fill="white")
    out = io.BytesIO()
    canvas.save(out, format=kind.upper(), **({"lossless": True} if kind == "webp" else {}))
    return out.getvalue()
