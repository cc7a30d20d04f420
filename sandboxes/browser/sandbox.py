"""The factory of browser sandboxes and their tools: `act` takes calls as text, `do` one action as JSON."""

from __future__ import annotations

from agenthub.errors import HostFault, UserError
from agenthub.isolation import Isolation
from agenthub.records import frozen
from agenthub.registry import registry
from agenthub.sandbox import Capabilities, CodeBox, SandboxSpec, ToolSpec
from agenthub.sandboxes.browser.actions import schema, written
from agenthub.sandboxes.browser.chromium import find
from agenthub.sandboxes.browser.leases import Leases
from agenthub.sandboxes.browser.session import BrowserSession
from agenthub.sandboxes.browser.settings import Settings, settings_of
from agenthub.sandboxes.browser.shop.session import ShopSession
from agenthub.sandboxes.browser.shop.site import ShopSite, shop_pool
from agenthub.sandboxes.browser.site import Files, Folder, Site, miniwob_folder
from agenthub.sandboxes.pool import Pool

__all__ = ["TOOLS", "BrowserSandbox"]

_BEGIN_S = 30.0

TOOLS = (
    ToolSpec(
        name="act",
        description=f"Acts on the page by calls, a line each, and shows it. Calls:\n{written()}",
        parameters=frozen(
            {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "Such as click('12')."}},
                "required": ["code"],
                "additionalProperties": False,
            }
        ),
    ),
    ToolSpec(name="do", description="Makes one action on the page and shows it.", parameters=frozen(schema())),
)


class BrowserSandbox:
    """A `SandboxFactory`. Its browsers are in boxes of the jail."""

    tools: tuple[ToolSpec, ...] = TOOLS

    def __init__(self, isolation: str = "jail") -> None:
        self._name = isolation
        self._isolation: Isolation | None = None
        self._leases: Leases | None = None
        self._miniwob: Folder | None = None
        self._shops: Pool | None = None

    def capabilities(self) -> Capabilities:
        """Pages live from turn to turn; with the page's own clock the same actions show the same."""
        return Capabilities(persistent=True, deterministic=True, fork="replay")

    @staticmethod
    def lacking() -> str:
        """Chromium, where there is none."""
        try:
            find()
        except UserError as missing:
            return str(missing)
        return ""

    async def open(self) -> None:
        """Find Chromium and start the jail.

        Raises:
            UserError: there is no Chromium here, or no jail.
            HostFault: the jail did not start.
        """
        if self._name != "jail":
            raise UserError(f"the browser runs in the jail; there is no image of it for {self._name!r} yet")
        find()
        isolation: Isolation = registry("isolation").load(self._name)()
        await isolation.open()
        self._isolation, self._leases = isolation, Leases(isolation)

    async def start(self, spec: SandboxSpec) -> BrowserSession:
        """A page at its beginning. Raises as SandboxFactory.start says."""
        if self._leases is None:
            raise HostFault("the browser sandbox is not open")
        if spec.isolation not in ("", "jail"):
            raise UserError(f"the browser runs in the jail; there is no image of it for {spec.isolation!r} yet")
        settings = settings_of(spec.params)
        if settings.site == "shop":
            return await self._in_shop(settings, spec, self._leases)
        lease = await self._leases.take(settings, spec.limits, lambda: self._site(settings, spec))
        session = BrowserSession(lease, self._leases)
        try:
            await session.begin(_BEGIN_S)
        except BaseException:
            self._leases.give_back(lease, clean=False)
            await self._leases.done(lease)
            raise
        return session

    async def _in_shop(self, settings: Settings, spec: SandboxSpec, leases: Leases) -> ShopSession:
        if self._isolation is None:
            raise HostFault("the browser sandbox is not open")
        self._shops = self._shops or shop_pool(self._isolation)
        site = ShopSite(settings.origin, await self._shops.take())
        try:
            lease = await leases.take(settings, spec.limits, lambda: site)
            session = ShopSession(lease, leases, site)
            try:
                await session.begin(_BEGIN_S)
            except BaseException:
                leases.give_back(lease, clean=False)
                await leases.done(lease)
                raise
        except BaseException:
            site.close()
            raise
        return session

    async def code_box(self, spec: SandboxSpec) -> CodeBox:
        """This sandbox runs no code. Raises UserError."""
        del spec
        raise UserError("the browser sandbox runs no code that could be graded")

    async def close(self) -> None:
        """End the browsers and the jail."""
        shops, self._shops = self._shops, None
        if shops is not None:
            await shops.close()
        leases, self._leases = self._leases, None
        if leases is not None:
            await leases.close()
        isolation, self._isolation = self._isolation, None
        if isolation is not None:
            await isolation.close()

    def _site(self, settings: Settings, spec: SandboxSpec) -> Site:
        if settings.site == "files":
            return Files(settings.origin, spec.files)
        if self._miniwob is None:
            self._miniwob = Folder(settings.origin, miniwob_folder())
        return self._miniwob
