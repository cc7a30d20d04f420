"""Who may come in: the bearer token, and on loopback without one, no page of a stranger's in a local browser."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from agenthub.errors import WireError

__all__ = ["check", "is_loopback"]


def is_loopback(host: str) -> bool:
    """True for localhost and the loopback addresses."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check(*, token: str | None, authorization: str | None, host: str | None, origin: str | None) -> None:
    """Let a request pass.

    Args:
        token: what the hub expects; None where it is bound to loopback alone.
        authorization, host, origin: the request's headers of these names.

    Raises:
        WireError: 401 `unauthorized`; 403 `foreign_host` or `foreign_origin`: a name that leads here but is not ours,
            as in DNS rebinding, or a page of another site.
    """
    if token is not None:
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise WireError("unauthorized", 401, "this hub needs a bearer token")
        return
    if not is_loopback(_hostname(f"//{host or ''}")):
        raise WireError("foreign_host", 403, "without a token this hub answers to loopback names only")
    if origin is not None and not is_loopback(_hostname(origin)):
        raise WireError("foreign_origin", 403, "without a token this hub answers no page of another site")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
