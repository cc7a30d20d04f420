"""One Chromium in a box, with many contexts: what starts it, what it shares out, and whose doing its end was."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from agenthub.errors import BoxLost, HostFault
from agenthub.isolation import Box, Isolation, Limits
from agenthub.sandboxes.browser.chromium import box_spec
from agenthub.sandboxes.browser.page import Page, Rules
from agenthub.sandboxes.browser.pipe import Gone, Pipe, Refused

__all__ = ["Browser", "Context"]

_START_S = 30.0
_PAGE_S = 20.0
_END_S = 5.0
_TOLD_BYTES = 1 << 14


class Context:
    """A browser context: storage, cookies and tabs of its own."""

    def __init__(self, browser: Browser, identity: str, rules: Rules) -> None:
        self.browser, self.id, self.rules = browser, identity, rules
        self.pages: list[Page] = []
        """The open tabs, in the order in which they were opened."""
        self.active = 0
        self.lost = ""
        """Why its first fault ended it: a tab's process crashed."""
        self._opened = asyncio.Event()
        self._expecting = False

    @property
    def page(self) -> Page:
        """The tab that actions go to. Raises Gone where there is none."""
        if self.lost or not self.pages:
            raise Gone(self.lost or "no tab is open")
        return self.pages[self.active]

    async def open(self, url: str) -> Page:
        """One more tab, in front, at an address that the caller has checked. Raises Gone, Refused."""
        pipe, rules = self.browser.pipe, self.rules
        size = {"width": rules.width, "height": rules.height}
        # The initial document of a tab is there without being loaded.
        self._expecting = url != "about:blank"
        made = await pipe.call("Target.createTarget", url=url, browserContextId=self.id, **size)
        async with asyncio.timeout(_PAGE_S):
            while not any(page.target == made["targetId"] for page in self.pages):
                if pipe.lost:
                    raise Gone(pipe.lost)
                self._opened.clear()
                await self._opened.wait()
            page = self.pages[self.active]
            await page.loaded()
        return page

    def attached(self, session: str, target: str) -> None:
        """The browser has opened a tab of this context."""
        page = Page(self.browser.pipe, session, target, self.rules)
        self.pages.append(page)
        self.active = len(self.pages) - 1
        if self._expecting:
            page.expect()
            self._expecting = False
        page.prepare()
        self._opened.set()

    def detached(self, target: str, why: str) -> None:
        """A tab is closed, or its process has ended."""
        for index, page in enumerate(self.pages):
            if page.target == target:
                page.gone(why)
                del self.pages[index]
                self.active = max(0, min(self.active - (index < self.active), len(self.pages) - 1))
                return

    async def close(self, page: Page) -> None:
        """Close a tab. Raises Gone, Refused."""
        await self.browser.pipe.call("Target.closeTarget", targetId=page.target)
        self.detached(page.target, "the tab was closed")

    def discard(self) -> None:
        """Close everything of it, without waiting."""
        self.browser.forget(self)


class Browser:
    """A running Chromium; used within one event loop."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.pipe = Pipe(box.fileno())
        self.contexts: dict[str, Context] = {}
        self.made = 0
        """Contexts that it has had so far."""
        self._said = bytearray()
        self._of: dict[str, Context] = {}
        self._loop = asyncio.get_running_loop()
        for stream in box.streams():
            self._loop.add_reader(stream, self._drain, stream)
        box.on_end(self._on_end)
        self.pipe.listen("", self._on_event)

    @classmethod
    async def start(cls, isolation: Isolation, limits: Limits) -> Browser:
        """A fresh one.

        Raises:
            UserError: this machine has no Chromium, or cannot give the limits.
            HostFault: it did not start.
        """
        browser = cls(await isolation.spawn(box_spec(limits)))
        try:
            async with asyncio.timeout(_START_S):
                only = [{"type": "page", "exclude": False}, {"exclude": True}]
                await browser.pipe.call("Target.setDiscoverTargets", discover=True, filter=only)
                arguments: dict[str, Any] = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
                await browser.pipe.call("Target.setAutoAttach", **arguments, filter=only)
        except (TimeoutError, Gone, Refused) as error:
            said = bytes(browser._said).decode(errors="backslashreplace").strip()
            await browser.close()
            raise HostFault(f"Chromium did not start: {error or 'no answer'}: {said[-500:]}") from error
        return browser

    @property
    def alive(self) -> bool:
        """True while it can be asked."""
        return not self.pipe.lost

    async def context(self, rules: Rules) -> Context:
        """A fresh context without a tab. Raises Gone, Refused."""
        made = await self.pipe.call("Target.createBrowserContext", disposeOnDetach=True)
        context = Context(self, made["browserContextId"], rules)
        self.contexts[context.id] = context
        self.made += 1
        self.pipe.tell("Browser.setDownloadBehavior", behavior="deny", browserContextId=context.id)
        return context

    def forget(self, context: Context) -> None:
        """End a context and its tabs, without waiting. Safe to call again."""
        if self.contexts.pop(context.id, None) is None:
            return
        for page in context.pages:
            page.gone("the context was closed")
            self._of.pop(page.target, None)
        context.pages.clear()
        self.pipe.tell("Target.disposeBrowserContext", browserContextId=context.id)

    async def fault(self, *, alone: bool, busy: bool) -> BoxLost | HostFault:
        """Why it ended, as what an episode that was in it ends with.

        Killed from outside, or lost with the jail: ours. Ended by itself: of the episode that had it alone or was
        acting in it at that moment; an episode that only stood beside it has lost its engine, which is ours.
        """
        try:
            async with asyncio.timeout(_END_S):
                # How it ended is heard a little after that it did.
                end = await self.box.ended()
            ours = end.code is None
        except TimeoutError:
            # It lives and does not listen any more.
            end, ours = await self.box.kill(), False
        if end.host_fault or ours or (end.code == -signal.SIGKILL and not end.oom):
            return HostFault(f"the browser was lost: {end.reason}")
        why = f"the browser ended: {end.reason}"
        return BoxLost(why) if alone or busy else HostFault(f"{why}, by another episode's page")

    async def close(self) -> None:
        """Kill it and free everything. Safe to call again."""
        self.pipe.close()
        await self.box.kill()

    def _on_end(self) -> None:
        for stream in self.box.streams():
            self._loop.remove_reader(stream)
        self.pipe.close("the browser is gone")

    def _drain(self, stream: int) -> None:
        try:
            data = os.read(stream, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(stream)
        self._said = (self._said + data)[-_TOLD_BYTES:]

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Target.attachedToTarget":
            self._on_attached(params)
        elif method == "Target.targetDestroyed":
            self._on_closed(params["targetId"])
        elif method == "Target.targetCrashed":
            self._on_crashed(params)
        elif method == "Pipe.closed":
            for context in self.contexts.values():
                for page in context.pages:
                    page.gone("the browser is gone")
                context._opened.set()

    def _on_attached(self, params: dict[str, Any]) -> None:
        told = params["targetInfo"]
        context = self.contexts.get(told.get("browserContextId", ""))
        if context is None or told["type"] != "page":
            self.pipe.tell("Runtime.runIfWaitingForDebugger", params["sessionId"])
            return
        self._of[told["targetId"]] = context
        context.attached(params["sessionId"], told["targetId"])

    def _on_closed(self, target: str) -> None:
        context = self._of.pop(target, None)
        if context is not None:
            context.detached(target, "the tab was closed")

    def _on_crashed(self, params: dict[str, Any]) -> None:
        context = self._of.pop(params["targetId"], None)
        if context is not None:
            context.lost = f"the page's process ended: {params['status']} {params['errorCode']}"
            context.detached(params["targetId"], context.lost)
