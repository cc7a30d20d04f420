"""The sandboxes of an episode whose hub was killed: those that were kept, or fresh ones in the same state."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any

from agenthub.episodes.boxes import Boxes, NotKept, stateless
from agenthub.episodes.forking import Differs, replayed
from agenthub.episodes.past import Past
from agenthub.episodes.workbench import Workbench
from agenthub.errors import AgenthubError, BoxLost, HostFault, WireError
from agenthub.suites.task import Task

__all__ = ["NotRegained", "Way", "regained"]


class Way(StrEnum):
    """How an episode's sandboxes were had again."""

    ATTACHED = "attached"
    """They are the same ones."""
    REPLAYED = "replayed"
    """The logged calls were made again in fresh ones, and showed the same."""
    NONE = "none"
    """It has none, or none with a state."""


class NotRegained(HostFault):
    """The state that an episode was in cannot be had again."""

    def __init__(self, why: AgenthubError) -> None:
        super().__init__(f"the hub was killed, and the episode's state could not be had again: {why}")
        self.detail: dict[str, Any] = {}
        """`turn` is the first whose replay showed something else, where one did."""
        if isinstance(why, Differs):
            self.detail = {"turn": why.turn}
        elif isinstance(why, WireError) and isinstance(why.detail, dict):
            self.detail = dict(why.detail)


async def regained(task: Task, workbench: Workbench, past: Past, id: str, *, kept: bool) -> tuple[Boxes, Way]:
    """The sandboxes of episode `id` as they were after `past`.

    Args:
        kept: those that its hub kept are in that state, as far as they are there.

    Raises:
        NotRegained: they are gone, and a replay is not possible or did not show the same. Nothing is left behind.
    """
    try:
        if not past.writes and await stateless(task, workbench):
            return await _started(task, workbench, past, ""), Way.NONE
        if kept:
            try:
                return await _started(task, workbench, past, id), Way.ATTACHED
            except NotKept:
                pass  # its supervisor was killed as well, or the box ended by itself
        return await replayed(task, workbench, past), Way.REPLAYED
    except (AgenthubError, BoxLost) as why:
        raise NotRegained(why) from why


async def _started(task: Task, workbench: Workbench, past: Past, kept: str) -> Boxes:
    boxes = Boxes(workbench)
    try:
        async with asyncio.timeout(past.limits.setup_seconds):
            await boxes.start(task, kept)
    except TimeoutError:
        raise HostFault(f"the sandboxes did not start within {past.limits.setup_seconds:g} s") from None
    return boxes
