"""What a supervisor keeps for the hub that comes after a killed one: the descriptors that lead to molds and boxes.

A box ends when the last descriptor of its socket and its status pipe is closed. As long as these are kept it stays as
it is, whoever dies on the other side. Standard library only; nothing here reads from a box.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import Any

from agenthub.sandboxes.isolation import messages

__all__ = ["BOX_DESCRIPTORS", "Keeper"]

BOX_DESCRIPTORS = 7
"""Socket, status pipe, output, error output, workspace, and pidfds of process 1 and of the worker."""


@dataclass(slots=True)
class _Mold:
    """A mold's channel, its hub's end, and what the hub was told of it."""

    channel: int
    facts: dict[str, Any]
    ready: bool = False


@dataclass(slots=True)
class _Box:
    facts: dict[str, Any]
    descriptors: list[int] = field(default_factory=list)


class Keeper:
    """Descriptors by mold number and by box name."""

    def __init__(self) -> None:
        self._molds: dict[int, _Mold] = {}
        self._boxes: dict[str, _Box] = {}

    def mold(self, number: int, channel: int, image: str, mounts: list[Any]) -> None:
        """Keep a duplicate of the hub's end of a mold's channel. Raises OSError."""
        facts = {"mold": number, "image": image, "mounts": mounts}
        self._molds[number] = _Mold(os.dup(channel), facts)

    def ready(self, number: int, no_fork: str) -> None:
        """A mold has told its hub that it is ready: what it said is said again to the next hub."""
        if number in self._molds:
            self._molds[number].ready = True
            self._molds[number].facts["no_fork"] = no_fork

    def mold_gone(self, number: int) -> None:
        """A mold has ended, and its boxes with it, or its hub has given it up."""
        kept = self._molds.pop(number, None)
        if kept is not None:
            os.close(kept.channel)
            for name in [name for name, box in self._boxes.items() if box.facts["mold"] == number]:
                self.forget(name)

    def box(self, facts: dict[str, Any], descriptors: list[int]) -> None:
        """Keep a box under its name; what was kept under the same name is let go."""
        self.forget(facts["box"])
        if len(descriptors) != BOX_DESCRIPTORS:
            # No room for all of them: what is not kept is made again by the next hub.
            _close(descriptors)
            return
        self._boxes[facts["box"]] = _Box(facts, descriptors)

    def forget(self, name: str) -> None:
        """Let go of a box; its hub has discarded it."""
        kept = self._boxes.pop(name, None)
        if kept is not None:
            _close(kept.descriptors)

    def hand_over(self, channel: socket.socket, facts: dict[str, Any]) -> None:
        """Give duplicates of everything to a hub. Raises OSError where it goes meanwhile."""
        molds = [mold for mold in self._molds.values() if mold.ready]
        boxes = [box for box in self._boxes.values() if box.facts["mold"] in self._molds]
        messages.send(channel, facts | {"molds": len(molds), "boxes": len(boxes)})
        for mold in molds:
            messages.send(channel, mold.facts, [mold.channel])
        for box in boxes:
            messages.send(channel, box.facts, box.descriptors)

    def close(self) -> None:
        """Let go of everything: every box ends."""
        for number in list(self._molds):
            self.mold_gone(number)
        for name in list(self._boxes):
            self.forget(name)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
