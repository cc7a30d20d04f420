"""A desktop episode: actions become input events, the programs are let finish, and the screen is shown.

Screen, files and processes are read from outside the box. Once the episode is over everything in it is stopped, and
only then is anything looked at that decides its worth.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agenthub.errors import AgenthubError, BoxLost, HostFault, UserError
from agenthub.records import Call, ImageRef, Observation, Part, Text
from agenthub.sandbox import CodeBox, FileChange
from agenthub.sandboxes.desktop import actions
from agenthub.sandboxes.desktop.code import run_code
from agenthub.sandboxes.desktop.link import DesktopLink, Refused
from agenthub.sandboxes.desktop.procedures import Procedures
from agenthub.sandboxes.desktop.programs import SCREEN
from agenthub.sandboxes.desktop.screens import Screens, written
from agenthub.sandboxes.desktop.settings import Settings
from agenthub.sandboxes.isolation.jailbox import JailBox

__all__ = ["DesktopSession"]

_MOST_FILES = 2000
_MOST_FILE = 4 << 20
_MOST_ACTIONS = 32
_MOST_ARGUMENT = 200
_SLACK_S = 10.0
_STEP_S = 20.0
_CLEANUP_S = 10.0
_QUIET = 4
_POLL_S = 0.015
_DEFAULT_WAIT_S = 5.0


class DesktopSession:
    """A `Sandbox`, a `World`, `Pictured` and `Tracked`; used by one caller at a time."""

    def __init__(self, box: JailBox, settings: Settings, code_box: Callable[[], Awaitable[CodeBox]]) -> None:
        self._box, self._settings = box, settings
        self._link = DesktopLink(box)
        self._procedures = Procedures(box, self._link, self)
        self._make_code_box = code_box
        self._code_box: CodeBox | None = None
        self._screens = Screens(box, settings)
        self._opening, self._opening_images = "", tuple[ImageRef, ...]()
        self._over, self._infeasible = "", ""
        self._stopped = self._closed = False
        self._lost = ""

    async def begin(self, files: Mapping[str, bytes], budget_s: float) -> None:
        """Put the task's files there, do the reset, and look for the first time.

        Raises:
            UserError: a step of the reset cannot be done.
            HostFault: the desktop did not start.
        """
        await self._link.ready(budget_s)
        try:
            for path, data in files.items():
                await self._box.write_file(path, data)
            await self._procedures.run("reset", self._settings.reset)
            await self.settled()
            seen = await self._look()
        except BoxLost as lost:
            raise HostFault(f"the desktop was lost before its first turn: {lost}") from lost
        self._opening = "".join(part.text for part in seen if isinstance(part, Text)).rstrip("\n")
        self._opening_images = tuple(part for part in seen if isinstance(part, ImageRef))
        self._pause()

    @property
    def opening(self) -> str:
        """What the desktop shows at first, by the task's channels."""
        return self._opening

    @property
    def opening_images(self) -> tuple[ImageRef, ...]:
        """The first screen."""
        return self._opening_images

    @property
    def over(self) -> str:
        """Why the episode has ended; empty while it goes on."""
        return self._over

    def take_blobs(self) -> Mapping[str, bytes]:
        """The screens that were shown since this was asked last, by content."""
        return self._screens.take_blobs()

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """Do what the call says and show the desktop; what is wrong with it is in the observation."""
        self._check_alive()
        self._box.wake()
        self._screens.forget_frames()
        parts: list[Part] = []
        failed = False
        try:
            async with asyncio.timeout(timeout_s) as limit:
                try:
                    parts += await self._do(call, timeout_s)
                except (UserError, Refused) as error:
                    failed = True
                    parts.append(Text(text=f"error: {error}\n", channel="error"))
                parts += await self._look()
        except TimeoutError:
            if not limit.expired():
                raise
            failed = True
            parts.append(Text(text=f"interrupted after {timeout_s:g} s\n", channel="notice"))
            self._reconnect()
        except BoxLost as lost:
            self._lost = str(lost)
            raise
        self._pause()
        return Observation(call_id=call.id, parts=tuple(parts), failed=failed)

    async def _do(self, call: Call, timeout_s: float) -> list[Part]:
        if call.tool == "desktop_code":
            return await self._code(call, timeout_s)
        given = call.arguments
        rows = given.get("actions") if "actions" in given else [given]
        if not isinstance(rows, list) or not 1 <= len(rows) <= _MOST_ACTIONS:
            raise UserError(f"actions: expected a list of 1 to {_MOST_ACTIONS} actions")
        if "actions" in given and len(given) > 1:
            raise UserError("actions comes alone")
        for row in rows:
            if not isinstance(row, Mapping):
                raise UserError("an action is an object with `action`")
            await self.act(row)
            if self._over:
                break
        return [Text(text=f"the episode is over: {self._over}\n", channel="notice")] if self._over else []

    async def act(self, row: Mapping[str, Any]) -> None:
        """One action, and the time that the programs take for it. Raises UserError, Refused, BoxLost, HostFault."""
        verb, given = actions.checked(row, self._settings.width, self._settings.height)
        if verb == "done":
            await self.settled()
            self._over = "the policy said that it was done"
        elif verb == "fail":
            self._infeasible = given.get("reason", "") or "no reason was given"
            self._over = "the policy said that the task cannot be done"
        elif verb == "wait":
            await asyncio.sleep(actions.waits(verb, given))
        elif verb == "wait_for":
            await self.wait_for(given["title"], float(given.get("seconds", _DEFAULT_WAIT_S)), there=True)
        else:
            events = actions.events_of(verb, given)
            if events:
                await self._link.ask("act", events=events, timeout_s=_STEP_S)
            await self.settled()

    async def wait_for(self, title: str, seconds: float, *, there: bool, activate: bool = False) -> None:
        """Wait until a window with such a title is there, or is not. Raises Refused, BoxLost, HostFault."""
        how = {"title": title, "seconds": seconds, "there": there, "activate": activate}
        told = await self._link.ask("wait", timeout_s=seconds + _SLACK_S, **how)
        if not told.get("found"):
            raise Refused(f"{'no' if there else 'a'} window has a title like {title!r} after {seconds:g} s")
        await self.settled()

    async def _code(self, call: Call, timeout_s: float) -> list[Part]:
        code = call.arguments.get("code")
        if not isinstance(code, str) or len(call.arguments) != 1:
            raise UserError("the tool takes one argument, code, a string of Python")
        fresh = self._code_box is None
        box = self._code_box = self._code_box or await self._make_code_box()

        async def send(verb: str, given: Mapping[str, Any]) -> Any:
            try:
                await self.act({**given, "action": verb})
            except (UserError, Refused) as error:
                raise ValueError(str(error)) from error
            try:
                return (await self._link.ask("look", timeout_s=_STEP_S)).get("windows")
            except Refused as error:
                raise ValueError(str(error)) from error

        out, error = await run_code(box, code, send, fresh=fresh, timeout_s=timeout_s)
        parts: list[Part] = [Text(text=out, channel="output")] if out else []
        if error is not None:
            raise UserError(f"{out}{error}") if out else UserError(error)
        return parts

    async def settled(self) -> None:
        """Wait until no program has work, several looks in a row, within the budget."""
        loop, quiet = asyncio.get_running_loop(), 0
        deadline = loop.time() + self._settings.settle_s
        while quiet < _QUIET and loop.time() < deadline:
            await asyncio.sleep(_POLL_S)
            # The resident program runs to answer us; it waits for its next order otherwise.
            quiet = 0 if any(it.busy for it in self._box.processes()) else quiet + 1
            if "frames" in self._settings.channels:
                await self._screens.keep_frame()

    async def _look(self) -> list[Part]:
        """What is shown now, by the task's channels."""
        wanted = self._settings.channels
        parts: list[Part] = []
        if "windows" in wanted or "pointer" in wanted:
            try:
                told = await self._link.ask("look", timeout_s=_STEP_S)
            except Refused as error:
                raise BoxLost(f"the desktop cannot be looked at: {error}") from error
            parts += written(told, wanted)
        if "frames" in wanted:
            parts += await self._screens.frames()
        if "screenshot" in wanted:
            parts.append(await self._screens.now())
        return parts

    async def stop(self) -> None:
        """Do what the task wants done before it is evaluated, and stop everything in the box. Once."""
        if self._stopped:
            return
        self._stopped = True
        self._box.wake()
        if not self._lost:
            try:
                await self.settled()
                await self._procedures.run("evaluate", self._settings.evaluate)
                await self.settled()
            except UserError:
                pass  # the policy left a desktop on which it cannot be done: what is there is what counts
            except BoxLost as lost:
                self._lost = str(lost)
        self._box.rest()

    async def facts(self) -> Mapping[str, Any]:
        """What a check may know: `infeasible` (what the policy said, or None), `over`, and `processes`, the programs
        that run, each with `program` and `argv`. Everything in the box is stopped."""
        await self.stop()
        rows = [
            {"program": it.program, "argv": [part[:_MOST_ARGUMENT] for part in it.argv]} for it in self._box.processes()
        ]
        return {"infeasible": self._infeasible or None, "over": self._over, "processes": rows}

    async def changes(self) -> tuple[FileChange, ...]:
        """Every file of the workspace, but the display's. Everything in the box is stopped."""
        await self.stop()
        made = []
        for path in await self._box.list_files(most=_MOST_FILES):
            if not path.startswith(f"{SCREEN}/"):
                made.append(FileChange(path=path, data=await self._box.read_file(path, max_bytes=_MOST_FILE)))
        return tuple(made)

    async def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """As Sandbox.read_file says."""
        self._check_alive()
        return await self._box.read_file(path, max_bytes=max_bytes)

    async def write_file(self, path: str, data: bytes) -> None:
        """As Sandbox.write_file says."""
        self._check_alive()
        await self._box.write_file(path, data)

    async def list_files(self) -> list[str]:
        """As Sandbox.list_files says, without the display's."""
        self._check_alive()
        return [path for path in await self._box.list_files(most=_MOST_FILES) if not path.startswith(f"{SCREEN}/")]

    async def fork(self, n: int) -> Sequence[DesktopSession]:
        """Desktops cannot be copied. Raises UserError."""
        raise UserError("a desktop cannot be copied; its actions can be made again")

    async def close(self) -> None:
        """Do the clean-up and free everything. Safe to call again."""
        if self._closed:
            return
        self._closed = True
        if self._settings.cleanup and not self._lost:
            self._box.wake()
            with contextlib.suppress(AgenthubError, TimeoutError):
                async with asyncio.timeout(_CLEANUP_S):
                    await self._procedures.run("cleanup", self._settings.cleanup)
        if self._code_box is not None:
            await self._code_box.close()
        self._link.close()
        self._box.discard()

    def _check_alive(self) -> None:
        if self._closed or self._stopped or self._lost:
            raise BoxLost(self._lost or "the desktop is closed")

    def _pause(self) -> None:
        """Nothing runs between two turns, where it can be stopped."""
        if self._box.freezes:
            self._box.rest()

    def _reconnect(self) -> None:
        """An order was given up in the middle: its answer would be taken for the next one's."""
        self._lost = "an action took longer than its turn"
