"""Who may come in: a bearer token, and on loopback without one, no page of a stranger's in a local browser.

A request is let in once, before anything of it is read; a WebSocket is a request. Whoever serves another dialect on the
same application finds who asks with `principal(request)`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from aiohttp import web

from agenthub.errors import ConfigError, WireError
from agenthub.server.access import Principal, Scope
from agenthub.server.quotas import Accounts
from agenthub.server.tokens import LOCAL, Keyring

__all__ = ["Guard", "is_loopback", "principal"]

_PRINCIPAL = web.RequestKey("principal", Principal)
_LOOK_EVERY_S = 1.0
_logger = logging.getLogger("agenthub.server")


def is_loopback(host: str) -> bool:
    """True for localhost and the loopback addresses."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def principal(request: web.Request) -> Principal:
    """Who asks. Every request that reaches a handler was let in, but for those of routes that are open to anyone."""
    return request[_PRINCIPAL]


class Guard:
    """The door of one hub."""

    def __init__(self, accounts: Accounts, keyring: Keyring | None = None) -> None:
        """Without a keyring, whoever comes over loopback may do everything."""
        self._keyring = keyring
        self._local = None if keyring else Principal(LOCAL, frozenset(Scope), accounts.of(LOCAL), True)
        self._inside: dict[Principal, set[asyncio.Transport]] = {}

    @property
    def open(self) -> bool:
        """True where no token is asked for."""
        return self._keyring is None

    def admit(self, request: web.Request) -> Principal:
        """Find who asks, and remember it for `principal`.

        Raises:
            WireError: 401 `unauthorized`; 403 `foreign_host` or `foreign_origin`: a name that leads here but is not
                ours, as in DNS rebinding, or a page of another site.
        """
        headers = request.headers
        if self._keyring is not None:
            scheme, _, given = headers.get("Authorization", "").partition(" ")
            who = self._keyring.find(given.strip()) if scheme.lower() == "bearer" else None
            if who is None:
                raise WireError("unauthorized", 401, "this hub needs a bearer token")
        else:
            assert self._local is not None  # made where there is no keyring
            _check_local(headers.get("Host"), headers.get("Origin"))
            who = self._local
        request[_PRINCIPAL] = who
        return who

    @contextmanager
    def inside(self, who: Principal, request: web.Request) -> Iterator[None]:
        """While the request is served its connection ends with its token."""
        transport = request.transport
        if transport is None or self._keyring is None:
            yield
            return
        inside = self._inside.setdefault(who, set())
        inside.add(transport)
        try:
            yield
        finally:
            inside.discard(transport)
            if not inside:
                self._inside.pop(who, None)

    def reload(self) -> int:
        """Read the tokens again and cut the connections of those that were revoked; gives how many were.

        Raises:
            ConfigError: the file cannot be used; the tokens are as they were.
        """
        if self._keyring is None:
            return 0
        revoked = self._keyring.reload()
        for who in revoked:
            for transport in list(self._inside.get(who, ())):
                transport.abort()
        return len(revoked)

    async def watch(self) -> None:
        """Read the tokens again whenever their file has changed, until cancelled. A broken file changes nothing."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._keyring is not None and self._keyring.changed():
                self.try_reload()

    def try_reload(self) -> None:
        """As `reload`, and log what came of it."""
        try:
            revoked = self.reload()
        except ConfigError as error:
            _logger.error("the tokens are as they were: %s", error)
        else:
            _logger.warning("tokens were read again; %d are revoked or changed", revoked)


def _check_local(host: str | None, origin: str | None) -> None:
    if not is_loopback(_hostname(f"//{host or ''}")):
        raise WireError("foreign_host", 403, "without a token this hub answers to loopback names only")
    if origin is not None and not is_loopback(_hostname(origin)):
        raise WireError("foreign_origin", 403, "without a token this hub answers no page of another site")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
