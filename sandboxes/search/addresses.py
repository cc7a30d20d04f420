"""Which URLs and addresses the fetcher may reach. Everything here is decided without a connection.

A host is refused where a browser would read a number out of it, where its name is one of a private network, and where
any of its addresses is not global unicast. The connection is then made to one of the addresses that were checked.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import idna

from agenthub.errors import UserError

__all__ = ["BENCHMARK_HOSTS", "MAX_URL_CHARS", "Refused", "Target", "check_addresses", "target"]

MAX_URL_CHARS = 2048
PORTS = {"http": 80, "https": 443}
BENCHMARK_HOSTS = (
    "huggingface.co",
    "hotpotqa.github.io",
    "kaggle.com",
    "paperswithcode.com",
    "openreview.net",
)
"""Hosts that publish questions of benchmarks beside their answers."""
_PRIVATE_NAMES = (
    "localhost local internal intranet lan home corp private localdomain arpa onion test invalid example alt"
)
_PRIVATE_SUFFIXES = frozenset(re.findall(r"\w+", _PRIVATE_NAMES))
_KEPT = "/?%:@!$&'()*+,;=~-._[]|"
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_V6 = [ipaddress.IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
"""Within 2000::/3: protocol assignments with Teredo, documentation, 6to4, documentation."""
_NOT_V4 = [ipaddress.IPv4Network(net) for net in ("192.88.99.0/24", "192.0.0.0/24")]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(UserError):
    """A URL, an address or a response that the fetcher refuses; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that may be fetched where its addresses may be reached."""

    url: str
    """As it is asked for: with the host in ASCII, without a fragment."""
    scheme: str
    host: str
    """In ASCII (punycode), lower case; an address without brackets."""
    port: int

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")


def target(url: str, *, deny: Sequence[str] = BENCHMARK_HOSTS, allow: Sequence[str] = ()) -> Target:
    """A URL as a target.

    Args:
        deny: hosts that are refused, with those below them.
        allow: where it is not empty, no other host is allowed.

    Raises:
        Refused: says why.
    """
    if len(url) > MAX_URL_CHARS:
        raise Refused(f"the URL has {len(url)} characters; at most {MAX_URL_CHARS}")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise Refused("the URL holds white space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"the URL cannot be read: {error}") from None
    if parts.scheme not in PORTS:
        raise Refused(f"scheme {parts.scheme[:20]!r} is not allowed; expected http or https")
    if "@" in parts.netloc:
        raise Refused("a URL with a user name is not allowed")
    if port not in (None, *PORTS.values()):
        raise Refused(f"port {port} is not allowed; expected 80 or 443")
    host = _host(parts.hostname or "")
    if allow and not _below(host, allow):
        raise Refused(f"host {host!r} is not one that this task may reach")
    if _below(host, deny):
        raise Refused(f"host {host!r} is on the list of denied hosts")
    made = Target(url="", scheme=parts.scheme, host=host, port=port or PORTS[parts.scheme])
    path, query = quote(parts.path or "/", safe=_KEPT), quote(parts.query, safe=_KEPT)
    clean = urlunsplit((parts.scheme, made.origin.partition("//")[2], path, query, ""))
    return Target(url=clean, scheme=made.scheme, host=made.host, port=made.port)


def check_addresses(host: str, addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses of a host where all of them may be reached.

    Raises:
        Refused: there is none, or one of them is not global unicast or is this machine's own.
    """
    found = tuple(dict.fromkeys(addresses))
    if not found:
        raise Refused(f"host {host!r} has no address")
    for text in found:
        address = _address(text)
        if address is None or not _public(address):
            raise Refused(f"host {host!r} leads to {text}, which is not a public address")
        if _own(address):
            raise Refused(f"host {host!r} leads to {text}, which is this machine's own address")
    return found


def _host(host: str) -> str:
    """A host in ASCII. Raises Refused."""
    if not host:
        raise Refused("the URL names no host")
    if ":" in host:
        if _address(host) is None:
            raise Refused(f"host {host[:60]!r} is no address")
        return str(ipaddress.IPv6Address(host))
    try:
        name = idna.encode(host.removesuffix("."), uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        name = host.lower().removesuffix(".")  # underscores and the like; the labels are checked below
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused(f"host {host[:80]!r} is no host name")
    if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
        # What ends in a number is read as an IPv4 address by browsers and C libraries, in octal, hex or as one number.
        if not re.fullmatch(r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}", name) or _address(name) is None:
            raise Refused(f"host {name!r} is an address in another form than a.b.c.d")
        return name
    if len(labels) < 2 or labels[-1] in _PRIVATE_SUFFIXES:
        raise Refused(f"host {name!r} is a name of a private network")
    return name


def _below(host: str, names: Sequence[str]) -> bool:
    return any(host == name or host.endswith("." + name) for name in names)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and not any(address in net for net in _NOT_V4)
    return address in _GLOBAL_V6 and address.is_global and not any(address in net for net in _NOT_V6)


def _own(address: Address) -> bool:
    """True where this machine has the address: then it would speak to itself under it. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return str(probe.getsockname()[0]) == str(address)
    except OSError:
        return False
