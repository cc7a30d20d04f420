"""A task's procedures on a desktop: what is done before the first turn, before the evaluation, and at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agenthub.errors import UserError
from agenthub.sandboxes.desktop.link import DesktopLink, Refused
from agenthub.sandboxes.desktop.settings import Step
from agenthub.sandboxes.isolation.jailbox import JailBox

__all__ = ["Acting", "Procedures"]

_SLACK_S = 10.0
_STEP_S = 20.0
_LAUNCHES = 3


class Acting(Protocol):
    """What a procedure may have done on the desktop."""

    async def act(self, row: Mapping[str, Any]) -> None:
        """One action as a policy's."""

    async def wait_for(self, title: str, seconds: float, *, there: bool, activate: bool = False) -> None:
        """Wait for a window, or for its end."""

    async def settled(self) -> None:
        """Wait until no program has work."""


class Procedures:
    """Does the steps of a suite's procedures."""

    def __init__(self, box: JailBox, link: DesktopLink, acting: Acting) -> None:
        self._box, self._link, self._acting = box, link, acting

    async def run(self, name: str, steps: Sequence[Step]) -> None:
        """Do a procedure's steps in order. Raises UserError with the step's place, BoxLost, HostFault."""
        for index, step in enumerate(steps):
            try:
                await self._step(step)
            except (UserError, Refused) as error:
                raise UserError(f"{name}[{index}], {step['do']}: {error}") from error

    async def _step(self, step: Step) -> None:
        match step["do"]:
            case "write":
                await self._box.write_file(step["path"], str(step["text"]).encode())
            case "launch":
                await self._launch(list(step["argv"]), step.get("title"))
            case "wait_for" | "wait_gone":
                there = step["do"] == "wait_for"
                await self._acting.wait_for(step["title"], _STEP_S, there=there, activate=there)
            case "run":
                told = await self._link.ask(
                    "run", argv=list(step["argv"]), seconds=_STEP_S, timeout_s=_STEP_S + _SLACK_S
                )
                if told.get("code") != 0:
                    raise UserError(f"it ended with status {told.get('code')}: {str(told.get('out'))[:300]}")
            case "act":
                for action in step["actions"]:
                    await self._acting.act(action)
            case _:
                await self._acting.settled()

    async def _launch(self, argv: Sequence[str], title: str | None) -> None:
        """Start a program and wait for its window; started again where none comes, as happens on a busy machine."""
        for left in reversed(range(_LAUNCHES)):
            await self._link.ask("launch", argv=argv, timeout_s=_STEP_S)
            if title is None:
                return
            try:
                await self._acting.wait_for(title, _STEP_S, there=True, activate=True)
                return
            except Refused:
                if not left:
                    raise
