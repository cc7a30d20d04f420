"""What of a desktop is shown: its screen and the frames before, read from outside the box, and what its windows are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agenthub.errors import BoxLost, UserError
from agenthub.images import image_ref
from agenthub.records import Part, Text
from agenthub.sandboxes.desktop.programs import SCREEN
from agenthub.sandboxes.desktop.screen import png_of
from agenthub.sandboxes.desktop.settings import Settings
from agenthub.sandboxes.isolation.jailbox import JailBox

__all__ = ["Screens", "written"]

_DUMP = f"{SCREEN}/Xvfb_screen0"
_DUMP_HEAD = 1 << 16
_MOST_TITLE = 300
_MOST_WINDOWS = 50
_FAR = 1 << 20


class Screens:
    """The display's memory as images. Their contents wait here until the episode takes them."""

    def __init__(self, box: JailBox, settings: Settings) -> None:
        self._box, self._settings = box, settings
        self._blobs: dict[str, bytes] = {}
        self._frames: list[bytes] = []

    def take_blobs(self) -> Mapping[str, bytes]:
        """Contents by SHA-256 of what was shown since this was asked last."""
        taken, self._blobs = self._blobs, {}
        return taken

    def forget_frames(self) -> None:
        """A new action begins."""
        self._frames.clear()

    async def keep_frame(self) -> None:
        """Keep the screen as a frame where it differs from the last one. Raises BoxLost."""
        dump = await self._dump()
        if not self._frames or self._frames[-1] != dump:
            self._frames.append(dump)
            # The first is where it began; of the others the later ones are nearer to what comes next.
            del self._frames[1 : max(1, len(self._frames) - self._settings.frames)]

    async def frames(self) -> list[Part]:
        """The frames before the last one, which is the screen."""
        return [await self._picture(dump) for dump in self._frames[:-1][-self._settings.frames :]]

    async def now(self) -> Part:
        """The screen. Raises BoxLost."""
        return await self._picture(await self._dump())

    async def _dump(self) -> bytes:
        most = self._settings.width * self._settings.height * 4 + _DUMP_HEAD
        try:
            return await self._box.read_file(_DUMP, max_bytes=most)
        except UserError as error:
            raise BoxLost(f"the display's memory is gone: {error}") from error

    async def _picture(self, dump: bytes) -> Part:
        try:
            data = await asyncio.to_thread(png_of, dump, self._settings.width, self._settings.height)
        except ValueError as error:
            return Text(text=f"no screen: {error}\n", channel="error")
        ref = image_ref(data)
        self._blobs[ref.sha256] = data
        return ref


def written(told: Mapping[str, Any], wanted: Sequence[str]) -> list[Part]:
    """What the resident program says of windows and pointer, in words; anything in the box may have forged it.

    Raises:
        BoxLost: it is not what that program says.
    """
    parts: list[Part] = []
    try:
        if "windows" in wanted:
            lines = [_window(row) for row in list(told.get("windows") or ())[:_MOST_WINDOWS]]
            text = "windows:\n" + "".join(f"{line}\n" for line in lines or ["none"])
            parts.append(Text(text=text, channel="windows"))
        if "pointer" in wanted:
            x, y = map(_place, told["pointer"])
            parts.append(Text(text=f"pointer: {x},{y}\n", channel="pointer"))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise BoxLost("a program on the desktop wrote to the sandbox's socket") from error
    return parts


def _window(row: Mapping[str, Any]) -> str:
    x, y, width, height = map(_place, row["box"])
    title = str(row["title"])[:_MOST_TITLE]
    return f"{'*' if row['active'] else '-'} {title!r} at {x},{y}, {width} x {height}"


def _place(value: Any) -> int:
    """A coordinate. Raises TypeError, ValueError, OverflowError where it is none that a display has."""
    if not -_FAR < (place := int(value)) < _FAR:
        raise ValueError("no display is so large")
    return place
