"""A browser episode in the shop: as any other, and with a database that its check looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agenthub.sandbox import FileChange
from agenthub.sandboxes.browser.leases import Lease, Leases
from agenthub.sandboxes.browser.session import BrowserSession
from agenthub.sandboxes.browser.shop.site import ShopSite

__all__ = ["ShopSession"]


class ShopSession(BrowserSession):
    """A `BrowserSession` that is `Tracked`."""

    def __init__(self, lease: Lease, leases: Leases, site: ShopSite) -> None:
        super().__init__(lease, leases)
        self._shop = site

    async def changes(self) -> tuple[FileChange, ...]:
        """The shop's database, once its server is stopped. Raises HostFault."""
        return await self._shop.changes()

    async def facts(self) -> Mapping[str, Any]:
        """As BrowserSession.facts, without a score: the database is what counts."""
        return {**await super().facts(), "score": None}

    async def close(self) -> None:
        """As BrowserSession.close, and the shop."""
        await super().close()
        self._shop.close()
