"""One tab: its document, what it loads, and the calls that everything else is made of."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from agenthub.sandboxes.browser.pipe import Gone, Pipe, Refused
from agenthub.sandboxes.browser.site import Request, Response, Site

__all__ = ["Page", "Rules"]

_SETTLE = "function(b,w,f){return this.settle(b,w,f)}"
_MOST_DIALOG = 2000
_ANSWER_S = 2.0
"""How long an action waits for the answers to what it made the page ask for."""


@dataclass(slots=True, kw_only=True)
class Rules:
    """What the pages of one context may do, and what the hub hears of them."""

    site: Site
    script: str
    """Runs in every document before its own."""
    name: str
    """Under which that script leaves the hub's functions."""
    width: int
    height: int
    locked: bool = False
    """The first page may not leave its address."""
    left: str = ""
    """Where it went nevertheless."""
    told: list[Any] = field(default_factory=list)
    """What the script's binding said, as it came."""
    notices: list[str] = field(default_factory=list)
    """What is to be shown with the next observation."""


class Page:
    """A `page` target of the browser, attached."""

    def __init__(self, pipe: Pipe, session: str, target: str, rules: Rules) -> None:
        self._pipe, self.session, self.target, self.rules = pipe, session, target, rules
        self.url, self.title = "about:blank", ""
        self.elapsed_ms = 0
        """Of its own time, since its document or its task began."""
        self.lost = ""
        """Why it is gone; empty while it is there."""
        self.home = ""
        """The address that a locked page must keep."""
        # A tab's first frame has the number of its target.
        self._main = target
        self._functions = ""
        self._loading = False
        self._asked: set[str] = set()
        """Requests whose answers the document has not got yet."""
        self._changed = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        pipe.listen(session, self._on_event)

    def prepare(self) -> None:
        """Give the target its rules, and let it begin."""
        rules = self.rules
        self.tell("Page.enable")
        self.tell("Runtime.enable")
        self.tell("Network.enable", maxTotalBufferSize=0, maxResourceBufferSize=0)
        self.tell("Runtime.addBinding", name=rules.name + "t")
        self.tell("Page.addScriptToEvaluateOnNewDocument", source=rules.script, runImmediately=True)
        self.tell("Fetch.enable", patterns=[{"urlPattern": "*"}])
        self.tell("Emulation.setFocusEmulationEnabled", enabled=True)
        size = {"width": rules.width, "height": rules.height}
        self.tell("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)
        self.tell("Runtime.runIfWaitingForDebugger")

    def call(self, method: str, **params: Any) -> asyncio.Future[dict[str, Any]]:
        """As `Pipe.call`, for this page."""
        return self._pipe.call(method, self.session, **params)

    def tell(self, method: str, **params: Any) -> None:
        """As `Pipe.tell`, for this page."""
        self._pipe.tell(method, self.session, **params)

    async def all(self, *calls: Awaitable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results of calls sent together. Raises as the first that fails."""
        return [await call for call in calls]

    def expect(self) -> None:
        """Something is going to be loaded."""
        self._loading = True

    async def loaded(self) -> None:
        """Wait until nothing is being loaded. Raises Gone."""
        while self._loading:
            if self.lost:
                raise Gone(self.lost)
            self._changed.clear()
            await self._changed.wait()

    async def go(self, url: str) -> str:
        """Load an address; why it was not, where it was not. Raises Gone, Refused."""
        self._loading = True
        done = await self.call("Page.navigate", url=url)
        if done.get("errorText") or not done.get("loaderId"):
            # Refused, or within the document: nothing is loaded.
            self._loading = False
            return str(done.get("errorText", ""))
        await self.loaded()
        return ""

    async def settle(self, budget_ms: int, *, whole: bool = False, frames: bool = False) -> None:
        """Let the page's time pass until it has nothing to do for `budget_ms`; all of that time where `whole`.

        Args:
            frames: two frames are painted first, as scrolling needs to be noticed.

        Raises:
            Gone: the page is gone.
        """
        for _ in range(4):
            await self.loaded()
            try:
                done = await self._settled(budget_ms, whole=whole, frames=frames)
            except Refused:
                # The document went away meanwhile.
                self._functions = ""
                await asyncio.sleep(0)
                continue
            if done is not None:
                self.title, self.elapsed_ms = str(done[0]), int(done[1])
            if not self._loading and not await self.quiet():
                return

    async def quiet(self) -> bool:
        """Wait for what the document has asked for; True where there was such a thing and it has come. Raises Gone."""
        if not self._asked:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                while self._asked:
                    if self.lost:
                        raise Gone(self.lost)
                    self._changed.clear()
                    await self._changed.wait()
        return not self._asked

    async def _settled(self, budget_ms: int, *, whole: bool, frames: bool) -> list[Any] | None:
        if not await self.functions():
            return None
        values: list[dict[str, Any]] = [{"value": value} for value in (budget_ms, whole, frames)]
        done = await self.run(_SETTLE, values)
        return done if isinstance(done, list) and len(done) == 2 else None

    async def functions(self) -> str:
        """The hub's functions in this document, as the protocol's object id; empty where it has none."""
        if not self._functions:
            name = orjson.dumps(self.rules.name).decode()
            taken = f"(()=>{{const f=window[{name}];delete window[{name}];return f}})()"
            done = await self.call("Runtime.evaluate", expression=taken)
            self._functions = str(done["result"].get("objectId", ""))
        return self._functions

    async def run(self, declaration: str, arguments: list[dict[str, Any]]) -> Any:
        """Call one of the hub's functions and wait for its value. Raises Gone, Refused."""
        done = await self.call(
            "Runtime.callFunctionOn",
            functionDeclaration=declaration,
            objectId=await self.functions(),
            arguments=arguments,
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in done:
            what = done["exceptionDetails"]
            raise Refused(str(what.get("exception", {}).get("description", what.get("text", "")))[:_MOST_DIALOG])
        return done["result"].get("value")

    def gone(self, why: str) -> None:
        """It is no more."""
        if not self.lost:
            self.lost = why
            for task in self._serving:
                task.cancel()
            self._pipe.forget(self.session)
            self._changed.set()

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        handler = _HANDLERS.get(method)
        if handler is not None:
            handler(self, params)

    def _on_binding(self, params: dict[str, Any]) -> None:
        if params["name"] == self.rules.name + "t" and not self.lost:
            self.rules.told.append(params["payload"])

    def _on_started(self, params: dict[str, Any]) -> None:
        if params["frameId"] == self._main:
            self._loading = True

    def _on_requested(self, params: dict[str, Any]) -> None:
        here = params.get("disposition", "currentTab") == "currentTab"
        if params["frameId"] == self._main and here and not str(params.get("url", "")).startswith("javascript:"):
            self._loading = True

    def _on_stopped(self, params: dict[str, Any]) -> None:
        if params["frameId"] == self._main:
            self._loading = False
            self._changed.set()

    def _on_navigated(self, params: dict[str, Any]) -> None:
        frame = params["frame"]
        if frame.get("parentId"):
            return
        self._main, self.url, self._functions = frame["id"], frame["url"], ""
        # What the last document asked for is of no interest any more, but for this one itself.
        self._asked &= {frame.get("loaderId", "")}
        self._check_home(self.url)

    def _on_within(self, params: dict[str, Any]) -> None:
        if params["frameId"] == self._main:
            self.url = params["url"]
            self._check_home(self.url)
            self._loading = False
            self._changed.set()

    def _check_home(self, url: str) -> None:
        if self.home and _plain(url) != self.home:
            self.rules.left = self.rules.left or url

    def _on_got(self, params: dict[str, Any]) -> None:
        self._asked.discard(params["requestId"])
        if not self._asked:
            self._changed.set()

    def _on_dialog(self, params: dict[str, Any]) -> None:
        kind = params["type"]
        accepted = kind in ("alert", "beforeunload")
        self.tell("Page.handleJavaScriptDialog", accept=accepted)
        if kind != "beforeunload":
            said = "" if accepted else ", which was dismissed"
            self.rules.notices.append(f"the page showed a {kind}{said}: {params['message'][:_MOST_DIALOG]}")

    def _on_paused(self, params: dict[str, Any]) -> None:
        request, number = params["request"], params["requestId"]
        url: str = request["url"]
        main = params.get("resourceType") == "Document" and params["frameId"] == self._main
        if main and self.home and _plain(url) != self.home:
            self.rules.left = self.rules.left or url
            self.tell("Fetch.failRequest", requestId=number, errorReason="Aborted")
            return
        site = self.rules.site
        if not (url.startswith(site.origin + "/") or url == site.origin):
            if main:
                self.rules.notices.append(f"not loaded: {url[:200]} is outside of {site.origin}")
            self.tell("Fetch.failRequest", requestId=number, errorReason="Aborted" if main else "BlockedByClient")
            return
        if params.get("networkId"):
            self._asked.add(params["networkId"])
        asked = Request(
            method=request["method"],
            url=url,
            headers=request.get("headers", {}),
            body=request.get("postData", "").encode("utf-8", "surrogateescape"),
        )
        answer = site.answer(asked)
        if inspect.isawaitable(answer):
            task = asyncio.ensure_future(self._serve(number, answer))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        else:
            self.tell("Fetch.fulfillRequest", requestId=number, **answer.fulfilled())

    async def _serve(self, number: str, answer: Awaitable[Response]) -> None:
        """Pass on what a site takes its time for; a page whose site fails is told so by a status."""
        response = Response(status=502)
        with contextlib.suppress(OSError, TimeoutError):
            response = await answer
        self.tell("Fetch.fulfillRequest", requestId=number, **response.fulfilled())


def _plain(url: str) -> str:
    """An address without what comes after `#`."""
    return url.partition("#")[0]


_HANDLERS: dict[str, Callable[[Page, dict[str, Any]], None]] = {
    "Fetch.requestPaused": Page._on_paused,
    "Network.loadingFailed": Page._on_got,
    "Network.loadingFinished": Page._on_got,
    "Page.frameNavigated": Page._on_navigated,
    "Page.frameRequestedNavigation": Page._on_requested,
    "Page.frameStartedLoading": Page._on_started,
    "Page.frameStoppedLoading": Page._on_stopped,
    "Page.javascriptDialogOpening": Page._on_dialog,
    "Page.navigatedWithinDocument": Page._on_within,
    "Runtime.bindingCalled": Page._on_binding,
}
