"""A browser episode: reads what the policy asks for, has it done, lets the page settle, and shows what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from agenthub.errors import BoxLost, HostFault, UserError
from agenthub.images import image_ref
from agenthub.records import Call, ImageRef, Observation, Part, Text
from agenthub.sandboxes.browser import miniwob
from agenthub.sandboxes.browser.acting import Actor
from agenthub.sandboxes.browser.actions import Action, from_calls, from_json
from agenthub.sandboxes.browser.hands import Hands
from agenthub.sandboxes.browser.leases import Lease, Leases
from agenthub.sandboxes.browser.looking import Facts, Seen, look
from agenthub.sandboxes.browser.page import Page
from agenthub.sandboxes.browser.pipe import Gone, Refused
from agenthub.sandboxes.browser.snapshot import Ids
from agenthub.sandboxes.fileless import NoFiles

__all__ = ["BrowserSession"]

_WAITS = ("noop", "wait")
_CLOSE_S = 5.0
_SHOWN_ACTION = 500


class BrowserSession(NoFiles):
    """A `Sandbox` and a `World`; used by one caller at a time."""

    def __init__(self, lease: Lease, leases: Leases) -> None:
        self._lease, self._leases = lease, leases
        self._context, self._settings = lease.context, lease.settings
        self._hands = Hands()
        self._ids: dict[str, Ids] = {}
        self._actor = Actor(self._context, self._hands, self._ids_of)
        self._goal, self._fields = "", dict[str, str]()
        self._messages: list[str] = []
        self._infeasible: str | None = None
        self._over = ""
        self._busy, self._stuck, self._closed = False, False, False
        self._blobs: dict[str, bytes] = {}
        self._opening = Seen(texts=())
        self._opening_images: tuple[ImageRef, ...] = ()

    async def begin(self, budget_s: float) -> None:
        """Start the page's task and look at it for the first time.

        Raises:
            UserError: the page cannot be started.
            HostFault: the browser was lost.
        """
        page = self._context.page
        try:
            async with asyncio.timeout(budget_s):
                if self._settings.site == "miniwob":
                    self._context.rules.locked = True
                    page.home = self._settings.url
                    self._goal, self._fields = await miniwob.begin(page, self._settings.seed, fresh=self._lease.fresh)
                else:
                    await page.settle(self._settings.settle_ms)
                await page.quiet()
                self._opening = await self._look("", "")
                self._opening_images = tuple(self._pictures(self._opening))
        except (Gone, Refused, TimeoutError) as error:
            raise HostFault(f"the page did not begin: {error or 'no answer'}") from error

    @property
    def opening(self) -> str:
        """What the page shows at first, by the task's channels."""
        return _text(self._opening.texts)

    @property
    def opening_images(self) -> tuple[ImageRef, ...]:
        """The images of it."""
        return self._opening_images

    @property
    def over(self) -> str:
        """Why the episode has ended; empty while it goes on."""
        return self._over

    def take_blobs(self) -> Mapping[str, bytes]:
        """The images that were shown since this was asked last, by content."""
        taken, self._blobs = self._blobs, {}
        return taken

    async def facts(self) -> Mapping[str, Any]:
        """What a check may know: `score` (None while there is none), `reward`, `reason`, `left`, `url`, `messages`,
        `infeasible`, `goal`."""
        end = miniwob.ended(self._context.rules)
        left = self._context.rules.left
        page = self._context.pages[self._context.active] if self._context.pages else None
        return {
            "score": 0.0 if left else end.raw if end else None,
            "reward": 0.0 if left else end.reward if end else None,
            "reason": f"the page was left for {left[:200]}" if left else end.reason if end else "",
            "left": left,
            "url": page.url if page else "",
            "messages": list(self._messages),
            "infeasible": self._infeasible,
            "goal": self._goal,
        }

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """Do what the call says and show the page; what is wrong with it is in the observation."""
        if self._closed:
            raise BoxLost("the browser sandbox is closed")
        error, shown = "", ""
        # Whoever comes after its end did not bring it about.
        self._busy = self._context.browser.alive
        try:
            async with asyncio.timeout(timeout_s):
                actions = _actions(call)
                shown = _written(actions)
                error = await self._do(actions)
                seen = await self._look(shown, error)
        except TimeoutError:
            self._stuck = True
            return _failed(call.id, f"the page did not answer within {timeout_s:g} s")
        except Gone as gone:
            raise await self._lost(gone) from gone
        except (UserError, Refused) as refused:
            error = str(refused)
            seen = await self._seen_after(error, shown)
        finally:
            self._busy = False
        return self._observation(call.id, seen, error)

    async def fork(self, n: int) -> Sequence[BrowserSession]:
        """Pages cannot be copied. Raises UserError."""
        raise UserError("a page cannot be copied; its actions can be made again")

    async def close(self) -> None:
        """Let the context go. Safe to call again."""
        if self._closed:
            return
        self._closed = True
        clean = not self._stuck
        if clean and self._settings.reset == "page":
            clean = await self._rested()
        self._leases.give_back(self._lease, clean=clean)
        await self._leases.done(self._lease)

    async def _rested(self) -> bool:
        """Let go of every key and button; False where the page cannot be used again."""
        with contextlib.suppress(Gone, Refused, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._hands.rest(self._context.page)
                return True
        return False

    async def _do(self, actions: Sequence[Action]) -> str:
        """Do them in order; what went wrong with the first that did, which is the last that is tried."""
        for action in actions:
            if self._over:
                break
            try:
                await self._one(action)
            except UserError as error:
                self._check_over()
                return str(error)
        return ""

    async def _one(self, action: Action) -> None:
        given = action.arguments
        if action.verb == "send_msg_to_user":
            self._messages.append(given["text"])
            return
        if action.verb == "report_infeasible":
            self._infeasible, self._over = given["reason"], "reported as infeasible"
            return
        if action.verb == "done":
            self._over = "the policy said that it was done"
            return
        waits = action.verb in _WAITS
        if not waits:
            await self._actor.act(action)
        if self._context.pages and not self._context.rules.left:
            budget = given["wait_ms"] if waits else self._settings.settle_ms
            frames = action.verb in ("scroll", "mouse_drag_and_drop", "drag_and_drop")
            if not miniwob.ended(self._context.rules):
                await self._context.page.settle(budget, whole=waits, frames=frames)
        self._check_over()

    def _check_over(self) -> None:
        if self._over:
            return
        rules = self._context.rules
        end = miniwob.ended(rules)
        if rules.locked and rules.left:
            self._over = f"the page was left for {rules.left[:200]}"
        elif rules.locked and not self._context.pages:
            rules.left, self._over = "about:blank", "the page was closed"
        elif end is not None:
            self._over = end.reason or "the page ended the episode"

    async def _look(self, action: str, error: str) -> Seen:
        notices = "; ".join(self._context.rules.notices)
        self._context.rules.notices.clear()
        told = "; ".join(part for part in (error, notices) if part)
        facts = Facts(goal=self._goal, action=action, error=told)
        if self._over:
            # The page may have left for elsewhere, and there is nothing more to decide by it.
            return Seen(texts=(("error", told),) if told else ())
        return await look(self._context, self._settings, self._ids_of, facts)

    async def _seen_after(self, error: str, shown: str) -> Seen:
        """The page, after something that could not be done."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                return await self._look(shown, error)
        except Gone as gone:
            raise await self._lost(gone) from gone
        except (Refused, TimeoutError) as why:
            self._stuck = True
            return Seen(texts=(("error", f"{error}; the page cannot be shown: {why}"),))

    async def _lost(self, gone: Gone) -> BoxLost | HostFault:
        """Whose doing it is that the page is gone."""
        self._stuck = True
        if not self._context.browser.alive:
            return await self._context.browser.fault(alone=self._lease.alone, busy=self._busy)
        return BoxLost(self._context.lost or str(gone))

    def _ids_of(self, page: Page) -> Ids:
        return self._ids.setdefault(page.target, Ids())

    def _pictures(self, seen: Seen) -> list[ImageRef]:
        made = []
        for picture in seen.pictures:
            ref = image_ref(picture.data)
            self._blobs[ref.sha256] = picture.data
            made.append(ref)
        return made

    def _observation(self, call_id: str, seen: Seen, error: str) -> Observation:
        parts: list[Part] = [Text(text=_shown(name, text), channel=name) for name, text in seen.texts]
        if self._over:
            parts.append(Text(text=f"the episode is over: {self._over}\n", channel="notice"))
        if error and not any(name == "error" for name, _ in seen.texts):
            parts.append(Text(text=_shown("error", error), channel="error"))
        parts += self._pictures(seen)
        return Observation(call_id=call_id, parts=tuple(parts), failed=bool(error), truncated=seen.cut)


def _actions(call: Call) -> tuple[Action, ...]:
    """What the call asks for. Raises UserError."""
    if call.tool in ("", "act"):
        code = call.arguments.get("code")
        if not isinstance(code, str) or len(call.arguments) != 1:
            raise UserError("the tool takes one argument, code: calls such as click('12'), a line each")
        return from_calls(code)
    if call.tool == "do":
        return (from_json(call.arguments),)
    raise UserError(f"the browser sandbox has no tool {call.tool!r}")


def _written(actions: Sequence[Action]) -> str:
    lines = [f"{it.verb}({', '.join(f'{name}={value!r}' for name, value in it.arguments.items())})" for it in actions]
    return "\n".join(lines)[:_SHOWN_ACTION]


def _shown(name: str, text: str) -> str:
    return f"{name}:\n{text}\n" if "\n" in text else f"{name}: {text}\n"


def _text(texts: Sequence[tuple[str, str]]) -> str:
    return "".join(_shown(name, text) for name, text in texts).rstrip("\n")


def _failed(call_id: str, text: str) -> Observation:
    return Observation(call_id=call_id, parts=(Text(text=f"error: {text}\n", channel="error"),), failed=True)
