"""Which context an episode gets: the ladder of resets, from the same document to a browser of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agenthub.errors import HostFault
from agenthub.isolation import Isolation, Limits
from agenthub.sandboxes.browser.chromium import least
from agenthub.sandboxes.browser.engine import Browser, Context
from agenthub.sandboxes.browser.page import Rules
from agenthub.sandboxes.browser.pipe import Gone, Refused
from agenthub.sandboxes.browser.settings import Settings
from agenthub.sandboxes.browser.site import Site

__all__ = ["Lease", "Leases"]

MOST_IDLE = 48
"""Contexts that wait for the next episode of their page."""
RENEW_AFTER = 2000
"""Contexts after which a browser is left to its last episodes, and another one takes the next."""
_EPOCH_MS = 1_593_000_000_000
_GUARD = Path(__file__).with_name("guard.js")


@dataclass(slots=True)
class Lease:
    """A context for one episode, with one tab at its page."""

    context: Context
    settings: Settings
    alone: bool
    """The browser is this episode's alone."""
    fresh: bool = True
    """The document is new; else it has had episodes before."""


class Leases:
    """The browsers of one factory."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._shared: Browser | None = None
        self._left: list[Browser] = []
        self._idle: dict[Context, Settings] = {}
        """Those that were used last are last."""
        self._starting = asyncio.Lock()

    @property
    def browsers(self) -> list[Browser]:
        """The shared ones that are alive."""
        return [it for it in (*self._left, self._shared) if it is not None and it.alive]

    async def take(self, settings: Settings, limits: Limits, site: Callable[[], Site]) -> Lease:
        """A context whose tab is at the settings' page.

        Args:
            limits: of a browser that the episode has alone.

        Raises:
            UserError: this machine has no Chromium.
            HostFault: it could not be had.
        """
        alone = settings.reset == "browser"
        for _ in range(3):
            browser = await Browser.start(self._isolation, least(limits)) if alone else await self._browser()
            try:
                found = self._waiting(settings, browser)
                return await (_again(found, settings) if found else _fresh(browser, settings, site(), alone))
            except (Gone, Refused, TimeoutError) as error:
                why = str(error)
                # A browser that cannot open a page is of no use to anybody.
                await browser.close()
        raise HostFault(f"no page could be opened: {why}")

    def give_back(self, lease: Lease, *, clean: bool) -> None:
        """The episode is over. What is not `clean` is used by nobody again."""
        context, settings = lease.context, lease.settings
        # What another site answers is of its own episode; the pages of MiniWoB++ are the same for all.
        again = settings.reset in ("page", "reload") and settings.site == "miniwob"
        keep = again and clean and context.browser is self._shared
        if not keep or context.lost or not context.pages or not context.browser.alive:
            context.discard()
        else:
            self._idle[context] = settings
            while len(self._idle) > MOST_IDLE:
                oldest = next(iter(self._idle))
                del self._idle[oldest]
                oldest.discard()

    async def done(self, lease: Lease) -> None:
        """End what was the episode's alone, and browsers that nobody is in any more."""
        if lease.alone:
            await lease.context.browser.close()
        for browser in [it for it in self._left if not it.contexts or not it.alive]:
            self._left.remove(browser)
            await browser.close()

    async def close(self) -> None:
        """End all browsers."""
        self._idle.clear()
        for browser in (*self._left, self._shared):
            if browser is not None:
                await browser.close()
        self._left, self._shared = [], None

    async def _browser(self) -> Browser:
        async with self._starting:
            old = self._shared
            if old is not None and old.alive and old.made < RENEW_AFTER:
                return old
            if old is not None:
                for context in [it for it in self._idle if it.browser is old]:
                    del self._idle[context]
                    context.discard()
                if old.alive:
                    self._left.append(old)
                else:
                    await old.close()
            self._shared = await Browser.start(self._isolation, _shared_limits())
            return self._shared

    def _waiting(self, settings: Settings, browser: Browser) -> Context | None:
        """A context that waits, at the same page where there is one."""
        if settings.reset not in ("page", "reload"):
            return None
        alike = [
            (context, was)
            for context, was in self._idle.items()
            if (was.site, was.width, was.height, was.clock)
            == (settings.site, settings.width, settings.height, settings.clock)
            and context.browser is browser
            and settings.site == "miniwob"
        ]
        same = next((context for context, was in alike if was.page == settings.page), None)
        if same is None and len(self._idle) >= MOST_IDLE // 2 and alike:
            same = alike[0][0]
        if same is not None:
            del self._idle[same]
        return same


async def _fresh(browser: Browser, settings: Settings, site: Site, alone: bool) -> Lease:
    name = f"h{secrets.token_hex(12)}"
    rules = Rules(
        site=site, script=_script(name, settings.clock), name=name, width=settings.width, height=settings.height
    )
    context = await browser.context(rules)
    try:
        await context.open(settings.url)
    except BaseException:
        context.discard()
        raise
    return Lease(context, settings, alone)


async def _again(context: Context, settings: Settings) -> Lease:
    rules = context.rules
    rules.left, rules.locked = "", False
    rules.told.clear()
    rules.notices.clear()
    try:
        for page in context.pages[1:]:
            await context.close(page)
        page = context.page
        page.home = ""
        same = page.url.partition("#")[0] == settings.url
        if settings.reset == "reload" or not same:
            await page.go(settings.url)
    except BaseException:
        context.discard()
        raise
    return Lease(context, settings, alone=False, fresh=settings.reset == "reload" or not same)


def _script(name: str, clock: str) -> str:
    values = {"@NAME@": name, "@PAGE_CLOCK@": "true" if clock == "page" else "false", "@EPOCH@": str(_EPOCH_MS)}
    text = _guard()
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


@cache
def _guard() -> str:
    return _GUARD.read_text(encoding="utf-8")


def _shared_limits() -> Limits:
    """Of a browser for many episodes: most of the machine, which the parent group bounds besides."""
    total_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    memory_mb = max(1024, min(16_384, total_mb * 6 // 10))
    cpus = float(os.cpu_count() or 1)
    return Limits(memory_mb=memory_mb, pids=8192, cpus=cpus, disk_mb=512, files=65_536, open_files=16_384)
